use super::*;

#[test]
fn weights_are_those_of_a_simplex() {
    let embedding = Embedding::<5, 6>::new();
    for i in 0..2000u32 {
        let x = |k: u32| ((i * 37 + k * 101) % 997) as f32 / 21.0;
        let simplex = embedding.place([x(0), x(1), x(2), x(3), x(4)]);
        assert!((simplex.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(simplex.weights.iter().all(|&w| w > -1e-5));
        assert_eq!(simplex.origin.iter().sum::<f32>(), 0.0);
        let mut ranks = simplex.rank;
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_filter_is_near_the_gaussian() {
    // Points are spaced by 1, the standard deviation is 3, and a single point has the value 1.
    let n = 61;
    let lattice =
        Lattice::<2, 3>::new(n * n, |i| [(i % n) as f32 / 3.0, (i / n) as f32 / 3.0]).unwrap();
    let mut input = vec![[0.0f32]; n * n];
    input[30 * n + 30] = [1.0];
    let out = lattice.filter(&input, &mut Room::default());
    let peak = out[30 * n + 30][0];
    for (dy, dx) in [(0, 3), (3, 0), (2, 2), (5, 1)] {
        let expected = (-((dy * dy + dx * dx) as f32) / 18.0).exp();
        let found = out[(30 + dy) * n + 30 + dx][0] / peak;
        assert!((found - expected).abs() < 0.2, "{dy} {dx}: {found} {expected}");
    }
    // The filter is symmetric: a contributes to b as much as b to a.
    let mut other = vec![[0.0f32]; n * n];
    other[33 * n + 31] = [1.0];
    let back = lattice.filter(&other, &mut Room::default());
    assert!((back[30 * n + 30][0] - out[33 * n + 31][0]).abs() < 1e-6);
}

#[test]
fn points_that_do_not_fit_are_refused() {
    assert!(Lattice::<5, 6>::new(1, |_| [1e6, 0.0, 0.0, 0.0, 0.0]).is_none());
    assert!(Lattice::<5, 6>::new(1, |_| [f32::NAN, 0.0, 0.0, 0.0, 0.0]).is_none());
    assert!(Lattice::<2, 3>::new(0, |_| [0.0; 2]).is_some());
}
