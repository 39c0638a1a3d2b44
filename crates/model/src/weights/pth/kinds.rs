//! Names of element types in pickles of torch.

use tch::Kind;

/// Returns the element kind of a torch storage class; `None` if libtorch does not support it.
pub(super) fn kind_of_storage(class: &str) -> Option<Kind> {
    Some(match class {
        "FloatStorage" => Kind::Float,
        "DoubleStorage" => Kind::Double,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" | "UntypedStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return None,
    })
}

/// Returns the size of an element of a torch storage class in bytes, also of a class that is not
/// supported, because in a legacy file it determines where the next storage begins.
pub(super) fn width_of_storage(class: &str) -> u64 {
    match class {
        "ComplexDoubleStorage" => 16,
        "ComplexFloatStorage" => 8,
        "QInt32Storage" => 4,
        _ => kind_of_storage(class).map_or(1, |kind| kind.elt_size_in_bytes() as u64),
    }
}

/// Returns the element kind of a torch dtype by its name; `None` if it is not supported.
pub(super) fn kind_of_dtype(name: &str) -> Option<Kind> {
    Some(match name {
        "float32" => Kind::Float,
        "float64" => Kind::Double,
        "float16" => Kind::Half,
        "bfloat16" => Kind::BFloat16,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "int16" => Kind::Int16,
        "int8" => Kind::Int8,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        _ => return None,
    })
}
