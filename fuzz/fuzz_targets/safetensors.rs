#![cfg_attr(fuzzing, no_main)]
#![cfg_attr(not(fuzzing), forbid(unsafe_code))]
#![doc = "See the target of this name in simdino_fuzz."]

simdino_fuzz::target!(safetensors);
