use super::*;
use ndarray::Array2;

use crate::vector::fixed_noise;

fn noise(patches: usize, width: usize) -> Array2<f32> {
    let values = fixed_noise(7, patches * width).into_iter().map(|x| x as f32).collect();
    Array2::from_shape_vec((patches, width), values).unwrap()
}

#[test]
fn bits_are_those_of_the_cosines() {
    for (patches, width) in [(1, 3), (7, 2), (8, 1), (65, 3), (200, 5), (333, 40)] {
        let features = noise(patches, width);
        let affinity = Affinity::from_features(features.view(), 0.2).unwrap();
        let double = features.mapv(f64::from);
        let cosine = |i: usize, j: usize| {
            let (a, b) = (double.row(i), double.row(j));
            a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
        };
        let mut degrees = vec![0; patches];
        for i in 0..patches {
            for j in 0..patches {
                assert_eq!(affinity.alike(i, j), cosine(i, j) > 0.2, "{patches}: {i} {j}");
                degrees[i] += u32::from(affinity.alike(i, j));
            }
        }
        assert_eq!(affinity.degrees(), degrees);
        assert_eq!(affinity, Affinity::from_fn(patches, |i, j| cosine(i, j) > 0.2));
    }
}

#[test]
fn the_product_is_that_of_the_matrix() {
    for patches in [1, 5, 8, 31, 32, 33, 100, 1030] {
        let affinity = Affinity::from_fn(patches, |i, j| (i * 7 + j * 13) % 5 < 2);
        let x: Vec<[f64; 2]> = (0..patches).map(|i| [(i % 9) as f64, -(i as f64)]).collect();
        let mut out = vec![[f64::NAN; 2]; patches];
        affinity.times(&x, &mut out);
        for (i, out) in out.iter().enumerate() {
            let sum = |k: usize| -> f64 {
                (0..patches).filter(|&j| affinity.alike(i, j)).map(|j| x[j][k]).sum()
            };
            assert_eq!(*out, [sum(0), sum(1)], "{patches}: row {i}");
        }
    }
}

#[test]
fn isolated_patches_have_no_edge() {
    let mut affinity = Affinity::from_fn(21, |_, _| true);
    affinity.isolate([3, 8, 20, 99]);
    let gone = |i| [3, 8, 20].contains(&i);
    assert_eq!(affinity, Affinity::from_fn(21, |i, j| !gone(i) && !gone(j)));
    assert_eq!(affinity.components(), 1);
}

#[test]
fn components_are_counted() {
    assert_eq!(Affinity::from_fn(0, |_, _| true).components(), 0);
    assert_eq!(Affinity::from_fn(9, |i, j| i == j).components(), 9);
    assert_eq!(Affinity::from_fn(9, |i, j| i % 2 == j % 2).components(), 2);
    assert_eq!(Affinity::from_fn(9, |i, j| j - i < 2).components(), 1);
}

#[test]
fn zero_and_broken_features() {
    let mut features = noise(10, 4);
    features.row_mut(4).fill(0.0);
    let affinity = Affinity::from_features(features.view(), 0.0).unwrap();
    assert!((0..10).all(|i| !affinity.alike(4, i)));
    features[[6, 2]] = f32::NAN;
    let error = Affinity::from_features(features.view(), 0.0).unwrap_err();
    assert_eq!(error, Error::NotFinite { patch: 6 });
    for tau in [1.0, f64::NAN, -0.1] {
        assert!(Affinity::from_features(noise(2, 2).view(), tau).is_err());
    }
    assert_eq!(Affinity::from_features(noise(0, 0).view(), 0.1).unwrap().patches(), 0);
}

#[test]
fn very_long_and_very_short_features_have_cosines_too() {
    for scale in [1e-9f32, 1e18] {
        let features = noise(40, 6);
        let plain = Affinity::from_features(features.view(), 0.1).unwrap();
        let scaled = features.mapv(|x| x * scale);
        assert_eq!(Affinity::from_features(scaled.view(), 0.1).unwrap(), plain);
    }
}
