#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub use pulp;

/// Runs a closure compiled for the best instruction set that this machine supports: AVX-512, AVX2,
/// NEON, or the baseline of the target.
///
/// The closure and everything it calls must be `#[inline(always)]`: only code that is inlined here
/// is compiled with that instruction set.
///
/// ```
/// let bytes: Vec<u8> = (0..100).collect();
/// let sum = simd::dispatch(
///     #[inline(always)]
///     || bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>(),
/// );
/// assert_eq!(sum, 4950);
/// ```
#[inline]
pub fn dispatch<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// Defines the following items for a trait `Isa`, whose methods are implemented once per
/// instruction set:
///
/// - the trait `Kernel` for computations that are generic over an `Isa`;
/// - `dispatch(kernel)`, which runs a kernel with the best instruction set that this machine
///   supports;
/// - in tests, `with_all(make_kernel)`, which runs a kernel with the baseline and with each
///   instruction set that this machine supports.
///
/// `Isa` must be implemented for the baseline type and, on x86-64, for the tokens `V3` (AVX2) and
/// `V4` (AVX-512) of [`pulp::x86`].
///
/// All time-critical code of a kernel must be `#[inline(always)]` and free of closures: code that
/// is not inlined is compiled for the baseline, and every operation in it becomes a function call.
#[macro_export]
macro_rules! dispatcher {
    ($isa:ident, $baseline:ident) => {
        // A computation that is generic over the instruction set.
        pub(crate) trait Kernel {
            // The result.
            type Output;
            // Runs the kernel. This method and all time-critical code must be `#[inline(always)]`.
            fn run(self, isa: impl $isa) -> Self::Output;
        }

        // A kernel and the instruction set that it was dispatched to.
        #[cfg(target_arch = "x86_64")]
        struct With<I, K>(I, K);

        #[cfg(target_arch = "x86_64")]
        impl<I: $isa, K: Kernel> $crate::pulp::WithSimd for With<I, K> {
            type Output = K::Output;

            #[inline(always)]
            fn with_simd<S: $crate::pulp::Simd>(self, _: S) -> K::Output {
                self.1.run(self.0)
            }
        }

        // Runs `kernel` with the best instruction set that this machine supports.
        #[inline]
        pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::pulp::Simd;
                use $crate::pulp::x86::{V3, V4};

                if let Some(v4) = V4::try_new() {
                    return Simd::vectorize(v4, With(v4, kernel));
                }
                if let Some(v3) = V3::try_new() {
                    return Simd::vectorize(v3, With(v3, kernel));
                }
            }
            kernel.run($baseline)
        }

        // Returns the kernel's result with the baseline, and its results with `dispatch` and with
        // each instruction set that this machine supports.
        #[cfg(test)]
        fn with_all<K: Kernel>(kernel: impl Fn() -> K) -> (K::Output, Vec<K::Output>) {
            let baseline = kernel().run($baseline);
            let others = vec![dispatch(kernel())];
            #[cfg(target_arch = "x86_64")]
            let others = {
                use $crate::pulp::Simd;
                use $crate::pulp::x86::{V3, V4};

                let v3 = V3::try_new().map(|v3| Simd::vectorize(v3, With(v3, kernel())));
                let v4 = V4::try_new().map(|v4| Simd::vectorize(v4, With(v4, kernel())));
                others.into_iter().chain(v3).chain(v4).collect()
            };
            (baseline, others)
        }
    };
}
