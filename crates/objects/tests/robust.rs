//! Any input gives a mask or none, but never a panic or a NaN.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use ndarray::Array2;
use objects::maskcut::{Note, maskcut_of};
use objects::{Affinity, Error, Grid, MaskCut, MaskCutOptions, maskcut, ncut};
use proptest::prelude::*;

fn sound(found: &MaskCut, grid: Grid) {
    for round in &found.rounds {
        assert_eq!(round.mask.grid(), grid);
        assert!(round.mask.area() < grid.cells().max(1), "the whole image is no object");
        // The mask is a single component.
        if let Some(first) = round.mask.cells().iter().position(|cell| *cell) {
            assert_eq!(round.mask.component(first), round.mask);
        }
        if let Some(cut) = &round.cut {
            assert!(cut.value.is_finite() && !cut.gap.is_nan() && cut.residual.is_finite());
            assert!(cut.vector.iter().all(|y| y.is_finite()));
        } else {
            assert!(!round.notes.is_empty());
        }
    }
    let mut taken = vec![false; 15 * grid.cells()];
    for mask in found.masks_at(Grid::new(3 * grid.height, 5 * grid.width)) {
        for (taken, inside) in taken.iter_mut().zip(mask.cells()) {
            assert!(!(*taken && *inside), "a pixel belongs to one mask");
            *taken |= *inside;
        }
    }
}

fn run(features: &Array2<f32>, grid: Grid) -> MaskCut {
    let options = MaskCutOptions::default();
    let found = maskcut(features.view(), grid, &options).unwrap();
    assert_eq!(found.rounds.len(), 3);
    sound(&found, grid);
    found
}

#[test]
fn special_features() {
    for (height, width) in [(1, 1), (1, 2), (1, 40), (40, 1), (3, 3), (8, 32), (32, 8), (10, 10)] {
        let grid = Grid::new(height, width);
        let n = grid.cells();
        run(&Array2::zeros((n, 5)), grid);
        run(&Array2::ones((n, 5)), grid);
        run(&Array2::from_shape_fn((n, n), |(i, j)| f32::from(u8::from(i == j))), grid);
        run(
            &Array2::from_shape_fn((n, 3), |(i, j)| if i == 0 && j == 0 { 1.0 } else { 0.0 }),
            grid,
        );
        run(&Array2::from_shape_fn((n, 2), |(i, j)| f32::from(u8::from(i % 2 == j))), grid);
        run(
            &Array2::from_shape_fn((n, 2), |(i, j)| f32::from(u8::from((i < n / 2) == (j == 0)))),
            grid,
        );
        run(&Array2::zeros((n, 0)), grid);
        run(&Array2::from_elem((n, 2), f32::MAX), grid);
        run(&Array2::from_elem((n, 2), f32::MIN_POSITIVE), grid);
    }
}

#[test]
fn features_that_are_not_finite_are_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut features = Array2::ones((12, 3));
        features[[7, 2]] = bad;
        let error =
            maskcut(features.view(), Grid::new(3, 4), &MaskCutOptions::default()).unwrap_err();
        assert_eq!(error, Error::NotFinite { patch: 7 });
        assert!(error.to_string().starts_with("the feature of patch 7 is not finite: check"));
    }
}

#[test]
fn a_graph_that_falls_apart_is_cut_between_its_parts() {
    // Five parts of different sizes, in graphs for the dense solver and for the iterative one.
    for side in [6, 20] {
        let grid = Grid::new(side, side);
        // Part 0 lies in two places, the first and the last.
        let place = |i: usize| [0, 0, 0, 1, 1, 2, 2, 3, 4, 5][i * 10 / grid.cells()];
        let part = |i: usize| place(i) % 5;
        let affinity = Affinity::from_fn(grid.cells(), |i, j| part(i) == part(j));
        let found = maskcut_of(affinity, grid, &MaskCutOptions::default()).unwrap();
        sound(&found, grid);
        assert!(found.rounds[0].notes.contains(&Note::Disconnected { parts: 5 }));
        assert!(!found.rounds[0].mask.is_empty());
        // A mask never contains half of a part in one place.
        for k in 0..6 {
            let inside = |i: &usize| found.rounds[0].mask.cells()[*i];
            let count = (0..grid.cells()).filter(|&i| place(i) == k).filter(inside).count();
            let all = (0..grid.cells()).filter(|&i| place(i) == k).count();
            assert!(count == 0 || count == all, "place {k}: {count} of {all}");
        }
    }
}

#[test]
fn a_patch_unlike_itself_has_a_value_above_one() {
    let affinity = Affinity::from_fn(2, |i, j| (i, j) != (1, 1));
    let cut = ncut(&affinity, 1e-5).unwrap();
    assert!((cut.value - 1.5).abs() < 1e-4, "{}", cut.value);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random graphs of every density, with several components, equal patches, and isolated ones.
    #[test]
    fn random_graphs(height in 1usize..14, width in 1usize..14, density in 0u64..100, seed in any::<u64>()) {
        let grid = Grid::new(height, width);
        let class = |i: usize| (i as u64).wrapping_mul(seed | 1) >> 60;
        let alike = |i: usize, j: usize| {
            let mixed = (class(i) * 31 + class(j) * 17).wrapping_mul(seed | 1) >> 32;
            mixed % 100 < density
        };
        let affinity = Affinity::from_fn(grid.cells(), alike);
        let options = MaskCutOptions::default();
        let found = maskcut_of(affinity.clone(), grid, &options).unwrap();
        sound(&found, grid);
        prop_assert_eq!(&maskcut_of(affinity.clone(), grid, &options).unwrap(), &found);
        if grid.cells() > 1 {
            let cut = ncut(&affinity, options.eps).unwrap();
            // Rounding errors grow with the ratio of the largest degree to the smallest, which
            // `eps` bounds.
            prop_assert!(cut.residual < 1e-9, "{}", cut.residual);
            // A patch that is not even like itself raises the bound from 1 to 2.
            let reflexive = (0..grid.cells()).all(|i| affinity.alike(i, i));
            let bound = if reflexive { 1.0 } else { 2.0 };
            prop_assert!((-1e-12..bound + 1e-9).contains(&cut.value), "{}", cut.value);
        }
    }
}
