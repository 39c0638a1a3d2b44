//! Ten shapes, each in its own coordinates: the origin is near the center, and sizes are about 1.

use std::f32::consts::{FRAC_PI_2, PI, TAU};
use std::sync::OnceLock;

/// The outline of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Square,
    Triangle,
    Star,
    Cross,
    Ring,
    Crescent,
    Arrow,
    Heart,
    Capsule,
}

/// The shape of each class, in the order of the labels.
pub(super) const SHAPES: [Shape; 10] = [
    Shape::Disc,
    Shape::Square,
    Shape::Triangle,
    Shape::Star,
    Shape::Cross,
    Shape::Ring,
    Shape::Crescent,
    Shape::Arrow,
    Shape::Heart,
    Shape::Capsule,
];

/// The size of a shape in its own coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Area.
    pub area: f32,
    /// Distance from the origin to the farthest point.
    pub reach: f32,
}

impl Shape {
    /// Returns whether (`x`, `y`) lies inside the shape; y points down, as in images.
    pub(crate) fn contains(self, x: f32, y: f32) -> bool {
        let radius = x.hypot(y);
        match self {
            Self::Disc => radius <= 1.0,
            Self::Square => x.abs().max(y.abs()) <= 0.8,
            Self::Triangle => star(x, y, 3, 0.5) >= 0.0,
            Self::Star => star(x, y, 5, 0.48) >= 0.0,
            Self::Cross => x.abs().max(y.abs()) <= 1.0 && x.abs().min(y.abs()) <= 0.36,
            Self::Ring => (0.5..=1.0).contains(&radius),
            Self::Crescent => radius <= 1.0 && (x - 0.5).hypot(y) > 0.75,
            Self::Arrow => {
                let head = (-0.1..=1.0).contains(&x) && y.abs() <= (1.0 - x) * 0.8;
                head || ((-1.0..=-0.1).contains(&x) && y.abs() <= 0.36)
            }
            Self::Heart => {
                let (x, y) = (1.2 * x, 0.15 - 1.2 * y);
                let q = x * x + y * y - 1.0;
                q * q * q <= x * x * y * y * y
            }
            Self::Capsule => (x.abs() - 0.62).max(0.0).hypot(y) <= 0.42,
        }
    }

    /// Returns the area and reach, which are measured once on a fine grid.
    pub(crate) fn extent(self) -> Extent {
        static EXTENTS: OnceLock<[Extent; 10]> = OnceLock::new();
        EXTENTS.get_or_init(|| SHAPES.map(Self::measure))[self as usize]
    }

    fn measure(self) -> Extent {
        const STEPS: i32 = 240;
        let side = 3.0 / STEPS as f32;
        let (mut count, mut reach) = (0, 0.0_f32);
        for j in 0..STEPS {
            for i in 0..STEPS {
                let (x, y) = ((i as f32 + 0.5) * side - 1.5, (j as f32 + 0.5) * side - 1.5);
                if self.contains(x, y) {
                    count += 1;
                    reach = reach.max(x.hypot(y));
                }
            }
        }
        Extent { area: count as f32 * side * side, reach }
    }
}

/// Returns a positive value inside a star with `points` tips at distance 1 and notches at distance
/// `notch`; `notch = cos(pi / points)` makes it a regular polygon.
fn star(x: f32, y: f32, points: u32, notch: f32) -> f32 {
    let half = PI / points as f32;
    // The angle from the nearest tip, folded onto one half of a point.
    let angle = (y.atan2(x) + FRAC_PI_2).rem_euclid(TAU / points as f32);
    let angle = angle.min(TAU / points as f32 - angle);
    let (px, py) = (x.hypot(y) * angle.cos(), x.hypot(y) * angle.sin());
    // The edge runs from the tip (1, 0) to the notch.
    let (ex, ey) = (notch * half.cos() - 1.0, notch * half.sin());
    ey * (1.0 - px) + ex * py
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_areas_are_the_known_ones() {
        let known = [
            (Shape::Disc, PI, 1.0),
            (Shape::Square, 2.56, 0.8 * 2.0_f32.sqrt()),
            (Shape::Triangle, 1.299, 1.0),
            (Shape::Ring, 0.75 * PI, 1.0),
            (Shape::Cross, 2.0 * 2.0 * 0.72 - 0.72 * 0.72, 1.0_f32.hypot(0.36)),
        ];
        for (shape, area, reach) in known {
            let extent = shape.extent();
            assert!((extent.area - area).abs() < 0.02, "{shape:?}: {extent:?}");
            assert!((extent.reach - reach).abs() < 0.02, "{shape:?}: {extent:?}");
        }
        assert!(SHAPES.iter().all(|s| s.extent().reach < 1.3));
    }
}
