use super::*;

#[test]
fn sigmoid_is_right_and_never_out_of_range() {
    for i in -20_000..20_000 {
        let x = i as f32 / 100.0;
        let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
        assert!((f64::from(sigmoid(x)) - expected).abs() < 2e-7, "{x}");
    }
    assert_eq!(sigmoid(0.0), 0.5);
    assert!(sigmoid(f32::INFINITY) <= 1.0 && sigmoid(f32::NEG_INFINITY) >= 0.0);
}

/// Returns an image of a disk on a background of another color, and the pixels of the disk.
fn disk(n: usize) -> (Vec<u8>, Vec<bool>) {
    let inside = |i: usize| {
        let (y, x) = ((i / n) as f64 - n as f64 / 2.0, (i % n) as f64 - n as f64 / 2.0);
        y.hypot(x) < n as f64 / 3.0
    };
    let color = |i: usize| if inside(i) { [200, 60, 30] } else { [40, 90, 160] };
    ((0..n * n).flat_map(color).collect(), (0..n * n).map(inside).collect())
}

#[test]
fn a_coarse_mask_takes_the_shape_of_the_object() {
    let n = 64;
    let (rgb, inside) = disk(n);
    let truth = Mask::new(Grid::new(n, n), inside).unwrap();
    let coarse = truth.resized(Grid::new(8, 8));
    let crf = Crf::new(&rgb, truth.grid(), &CrfOptions::default()).unwrap();
    let before = coarse.resized(truth.grid()).iou(&truth).unwrap();
    let refined = crf.refine(&[coarse.resized(truth.grid())]).unwrap().remove(0);
    assert!(refined.is_kept() && refined.mask.iou(&truth).unwrap() > before.max(0.97), "{before}");
    assert!(crf.refine(&[coarse]).unwrap()[0].mask.iou(&truth).unwrap() > 0.97);
}

#[test]
fn masks_side_by_side_are_as_if_alone() {
    let (rgb, inside) = disk(40);
    let grid = Grid::new(40, 40);
    let crf = Crf::new(&rgb, grid, &CrfOptions::default()).unwrap();
    let maps: Vec<Vec<f32>> = (0..6)
        .map(|k| {
            inside
                .iter()
                .enumerate()
                .map(|(i, &m)| if m == (i % (k + 2) > 0) { 0.7 } else { 0.2 })
                .collect()
        })
        .collect();
    let together = crf.marginals(&maps).unwrap();
    for (map, together) in maps.iter().zip(&together) {
        assert_eq!(&crf.marginals(std::slice::from_ref(map)).unwrap()[0], together);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| crf.marginals(&maps).unwrap()), together);
}

#[test]
fn special_images_and_masks() {
    for (height, width) in [(1, 1), (1, 9), (5, 1), (7, 3)] {
        let grid = Grid::new(height, width);
        let crf = Crf::new(&vec![128; 3 * grid.cells()], grid, &CrfOptions::default()).unwrap();
        let full = Mask::new(grid, vec![true; grid.cells()]).unwrap();
        let refined = crf.refine(&[Mask::empty(grid), full.clone()]).unwrap();
        assert_eq!(refined[0], Refined { mask: Mask::empty(grid), iou: None });
        assert!(!refined[0].is_kept() && refined[1].mask == full && refined[1].is_kept());
        let certain = crf.marginals(&[vec![1.0; grid.cells()], vec![0.0; grid.cells()]]).unwrap();
        assert!(certain.iter().flatten().all(|p| p.is_finite()));
    }
    let none = Crf::new(&[], Grid::new(0, 4), &CrfOptions::default()).unwrap();
    assert!(none.marginals(&[vec![]]).unwrap()[0].is_empty());
    assert!(none.marginals(&[]).unwrap().is_empty());
}

#[test]
fn wrong_input_is_refused() {
    let grid = Grid::new(2, 2);
    let default = CrfOptions::default();
    assert!(Crf::new(&[0; 5], grid, &default).is_err());
    let tiny = CrfOptions { bilateral_rgb: 1e-3, ..default };
    let error = Crf::new(&[255; 12], grid, &tiny).unwrap_err();
    assert!(error.to_string().contains("larger standard deviations"), "{error}");
    for bad in [0.0, f32::NAN, f32::INFINITY] {
        let options = CrfOptions { gaussian_xy: bad, ..default };
        assert!(matches!(Crf::new(&[0; 12], grid, &options), Err(Error::Option { .. })));
    }
    let crf = Crf::new(&[0; 12], grid, &default).unwrap();
    assert!(crf.marginals(&[vec![0.5; 3]]).is_err());
    let error = crf.marginals(&[vec![0.5, 0.5, f32::NAN, 0.5]]).unwrap_err();
    assert_eq!(error, Error::Label { position: 2 });
}
