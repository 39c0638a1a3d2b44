//! Gaussian filters of many dimensions on the permutohedral lattice (Adams, Baek, Davis 2010).
//!
//! A point with `D` features lies in a simplex of `V = D + 1` vertices. Filtering spreads
//! ("splats") values over the vertices, blurs them along the `V` axes of the lattice, and reads
//! ("slices") the result with the same weights. Positions and weights are computed in the same
//! order as in the densecrf library, so that the numbers are equal.

use rayon::prelude::*;

/// Number of points or vertices that one thread handles at a time.
const PART: usize = 8192;

/// The position of a point: the vertices of its simplex, by number, and their weights.
#[derive(Debug, Clone, Copy)]
struct Corner<const V: usize> {
    vertices: [u32; V],
    weights: [f32; V],
}

/// Points on the lattice; `V` must be `D + 1`.
#[derive(Debug)]
pub(crate) struct Lattice<const D: usize, const V: usize> {
    points: Vec<Corner<V>>,
    /// Vertex `v` gets its values from the points of `splat[starts[v]..starts[v + 1]]`, with their
    /// weights.
    starts: Vec<u32>,
    splat: Vec<(u32, f32)>,
    /// The two neighbors of each vertex along each axis; vertex 0 stands for those without points.
    neighbors: [Vec<[u32; 2]>; V],
}

impl<const D: usize, const V: usize> Lattice<D, V> {
    /// Number of bits of one coordinate in a packed key.
    const BITS: usize = 60 / D;

    /// Places `count` points; returns `None` if features of one are not finite or too large for the
    /// lattice.
    pub(crate) fn new(count: usize, features: impl Fn(usize) -> [f32; D] + Sync) -> Option<Self> {
        let embedding = Embedding::<D, V>::new();
        let limit = ((1i64 << (Self::BITS - 1)) - 4 * V as i64) as f32;
        let mut simplexes = vec![Simplex::default(); count];
        let fits = simplexes.par_chunks_mut(PART).enumerate().map(|(part, simplexes)| {
            let mut fits = true;
            for (i, simplex) in simplexes.iter_mut().enumerate() {
                *simplex = embedding.place(features(part * PART + i));
                fits &= simplex.origin.iter().all(|x| x.abs() < limit);
            }
            fits
        });
        if !fits.reduce(|| true, |a, b| a && b) {
            return None;
        }
        let mut table = Table::new(count);
        let points = number_vertices(&simplexes, &mut table);
        let (starts, splat) = gather_lists(&points, table.keys.len());
        let neighbors = std::array::from_fn(|axis| table.neighbors(Self::step(axis)));
        Some(Self { points, starts, splat, neighbors })
    }

    /// Returns what one step along an axis adds to a packed key.
    fn step(axis: usize) -> u64 {
        let unit = |k: usize| 1u64 << (k * Self::BITS);
        let back = (0..D).fold(0u64, |sum, k| sum.wrapping_sub(unit(k)));
        if axis < D { back.wrapping_add(V as u64 * unit(axis)) } else { back }
    }

    /// Filters `L` values per point.
    pub(crate) fn filter<const L: usize>(
        &self,
        input: &[[f32; L]],
        room: &mut Room<L>,
    ) -> Vec<[f32; L]> {
        let vertices = self.starts.len() - 1;
        room.values.resize(vertices, [0.0; L]);
        room.blurred.resize(vertices, [0.0; L]);
        room.values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
            for (i, value) in values.iter_mut().enumerate() {
                let v = part * PART + i;
                let mut sum = [0.0; L];
                for &(point, weight) in
                    &self.splat[self.starts[v] as usize..self.starts[v + 1] as usize]
                {
                    let from = &input[point as usize];
                    for lane in 0..L {
                        sum[lane] += weight * from[lane];
                    }
                }
                *value = sum;
            }
        });
        for axis in &self.neighbors {
            blur(axis, &room.values, &mut room.blurred);
            std::mem::swap(&mut room.values, &mut room.blurred);
        }
        self.slice(&room.values)
    }

    fn slice<const L: usize>(&self, values: &[[f32; L]]) -> Vec<[f32; L]> {
        let alpha = 1.0 / (1.0 + (-(D as f32)).exp2());
        let read = |point: &Corner<V>| {
            let mut sum = [0.0; L];
            for (&vertex, weight) in point.vertices.iter().zip(&point.weights) {
                let value = &values[vertex as usize];
                for lane in 0..L {
                    sum[lane] += weight * alpha * value[lane];
                }
            }
            sum
        };
        self.points.par_iter().with_min_len(PART).map(read).collect()
    }
}

/// Buffers of a filter, which can be reused by the next one.
#[derive(Debug, Default)]
pub(crate) struct Room<const L: usize> {
    values: Vec<[f32; L]>,
    blurred: Vec<[f32; L]>,
}

/// Adds half of both neighbors to each vertex. Vertex 0 stays zero.
fn blur<const L: usize>(neighbors: &[[u32; 2]], values: &[[f32; L]], blurred: &mut [[f32; L]]) {
    let parts =
        blurred.par_chunks_mut(PART).zip(neighbors.par_chunks(PART)).zip(values.par_chunks(PART));
    parts.for_each(|((blurred, neighbors), own)| {
        for ((blurred, [a, b]), own) in blurred.iter_mut().zip(neighbors).zip(own) {
            let (a, b) = (&values[*a as usize], &values[*b as usize]);
            for lane in 0..L {
                blurred[lane] = own[lane] + 0.5 * (a[lane] + b[lane]);
            }
        }
    });
}

/// The simplex of a point.
#[derive(Debug, Clone, Copy)]
struct Simplex<const V: usize> {
    /// The vertex with remainder 0.
    origin: [f32; V],
    /// Rank of each coordinate by its difference from that of the origin, from the largest.
    rank: [u8; V],
    weights: [f32; V],
}

impl<const V: usize> Default for Simplex<V> {
    fn default() -> Self {
        Self { origin: [0.0; V], rank: [0; V], weights: [0.0; V] }
    }
}

impl<const V: usize> Simplex<V> {
    /// Returns the packed coordinates of the vertex with a remainder; the last coordinate follows
    /// from the others.
    fn key(&self, remainder: usize, bits: usize) -> u64 {
        let mut key = 0;
        for i in 0..V - 1 {
            let wrapped = usize::from(self.rank[i]) > V - 1 - remainder;
            let shift = remainder as i64 - if wrapped { V as i64 } else { 0 };
            let coordinate = self.origin[i] as i64 + shift + (1 << (bits - 1));
            key |= (coordinate as u64) << (i * bits);
        }
        key
    }
}

/// The map from features to the lattice.
#[derive(Debug)]
struct Embedding<const D: usize, const V: usize> {
    scale: [f32; D],
}

impl<const D: usize, const V: usize> Embedding<D, V> {
    fn new() -> Self {
        // The standard deviation of the blur, in units of the lattice.
        let deviation = ((2.0f64 / 3.0).sqrt() * V as f64) as f32;
        let scale =
            |i: usize| (1.0 / (((i + 2) * (i + 1)) as f64).sqrt() * f64::from(deviation)) as f32;
        Self { scale: std::array::from_fn(scale) }
    }

    fn place(&self, features: [f32; D]) -> Simplex<V> {
        let mut elevated = [0.0f32; V];
        let mut sum = 0.0;
        for j in (1..V).rev() {
            let scaled = features[j - 1] * self.scale[j - 1];
            elevated[j] = sum - j as f32 * scaled;
            sum += scaled;
        }
        elevated[0] = sum;

        let (size, down) = (V as f32, 1.0 / V as f32);
        let mut simplex = Simplex::default();
        let mut excess = 0;
        for i in 0..V {
            let nearest = (down * elevated[i]).round_ties_even();
            simplex.origin[i] = nearest * size;
            excess += nearest as i32;
        }
        self.rank(&elevated, excess, &mut simplex);

        let mut weights = [0.0f32; 16];
        for i in 0..V {
            let rest = (elevated[i] - simplex.origin[i]) * down;
            let place = V - 1 - usize::from(simplex.rank[i]);
            weights[place] += rest;
            weights[place + 1] -= rest;
        }
        weights[0] += 1.0 + weights[V];
        simplex.weights.copy_from_slice(&weights[..V]);
        simplex
    }

    /// Ranks the coordinates, and moves the origin to the plane where they sum to zero.
    fn rank(&self, elevated: &[f32; V], excess: i32, simplex: &mut Simplex<V>) {
        let mut rank = [excess; V];
        for i in 0..V {
            for j in i + 1..V {
                if elevated[i] - simplex.origin[i] < elevated[j] - simplex.origin[j] {
                    rank[i] += 1;
                } else {
                    rank[j] += 1;
                }
            }
        }
        for i in 0..V {
            if rank[i] < 0 {
                rank[i] += V as i32;
                simplex.origin[i] += V as f32;
            } else if rank[i] >= V as i32 {
                rank[i] -= V as i32;
                simplex.origin[i] -= V as f32;
            }
            simplex.rank[i] = rank[i].clamp(0, V as i32 - 1) as u8;
        }
    }
}

/// Numbers the vertices of all simplexes in the order of their first use, starting at 1.
fn number_vertices<const V: usize>(simplexes: &[Simplex<V>], table: &mut Table) -> Vec<Corner<V>> {
    let bits = 60 / (V - 1);
    let mut points: Vec<Corner<V>> = Vec::with_capacity(simplexes.len());
    let mut last: Option<&Simplex<V>> = None;
    for simplex in simplexes {
        // Neighboring pixels often share a simplex.
        let vertices = match (last, points.last()) {
            (Some(same), Some(point))
                if same.origin == simplex.origin && same.rank == simplex.rank =>
            {
                point.vertices
            }
            _ => std::array::from_fn(|remainder| table.insert(simplex.key(remainder, bits))),
        };
        points.push(Corner { vertices, weights: simplex.weights });
        last = Some(simplex);
    }
    points
}

/// Returns, for each vertex, the points that it gets values from, in their order.
fn gather_lists<const V: usize>(
    points: &[Corner<V>],
    vertices: usize,
) -> (Vec<u32>, Vec<(u32, f32)>) {
    let mut starts = vec![0u32; vertices + 1];
    for point in points {
        for &vertex in &point.vertices {
            starts[vertex as usize + 1] += 1;
        }
    }
    for v in 0..vertices {
        starts[v + 1] += starts[v];
    }
    let mut next = starts.clone();
    let mut splat = vec![(0, 0.0); points.len() * V];
    for (i, point) in points.iter().enumerate() {
        for (&vertex, &weight) in point.vertices.iter().zip(&point.weights) {
            let place = &mut next[vertex as usize];
            splat[*place as usize] = (i as u32, weight);
            *place += 1;
        }
    }
    (starts, splat)
}

/// A hash table from packed keys to numbers of vertices.
#[derive(Debug)]
struct Table {
    /// `keys[v]` is the key of vertex `v`; vertex 0 is not in the table.
    keys: Vec<u64>,
    /// Numbers of vertices; 0 marks a free place.
    places: Vec<u32>,
    shift: u32,
}

impl Table {
    fn new(points: usize) -> Self {
        let size = (2 * points).next_power_of_two().max(64);
        Self { keys: vec![u64::MAX], places: vec![0; size], shift: 64 - size.trailing_zeros() }
    }

    /// Returns the place of a key, or the free place where it belongs.
    fn find(&self, key: u64) -> usize {
        let mixed = (key ^ (key >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut place = (mixed >> self.shift) as usize;
        loop {
            match self.places[place] {
                0 => return place,
                vertex if self.keys[vertex as usize] == key => return place,
                _ => place = (place + 1) & (self.places.len() - 1),
            }
        }
    }

    fn insert(&mut self, key: u64) -> u32 {
        let place = self.find(key);
        if self.places[place] != 0 {
            return self.places[place];
        }
        let vertex = self.keys.len() as u32;
        self.keys.push(key);
        self.places[place] = vertex;
        if 2 * self.keys.len() > self.places.len() {
            self.grow();
        }
        vertex
    }

    fn grow(&mut self) {
        self.places = vec![0; 2 * self.places.len()];
        self.shift -= 1;
        for vertex in 1..self.keys.len() {
            let place = self.find(self.keys[vertex]);
            self.places[place] = vertex as u32;
        }
    }

    /// Returns the vertices one step ahead of each vertex and one step behind it.
    fn neighbors(&self, step: u64) -> Vec<[u32; 2]> {
        let ahead = |key: &u64| self.places[self.find(key.wrapping_add(step))];
        let mut neighbors: Vec<[u32; 2]> = vec![[0; 2]; self.keys.len()];
        neighbors[1..].par_chunks_mut(PART).zip(self.keys[1..].par_chunks(PART)).for_each(
            |(to, keys)| {
                for (to, key) in to.iter_mut().zip(keys) {
                    to[0] = ahead(key);
                }
            },
        );
        for vertex in 1..neighbors.len() {
            let ahead = neighbors[vertex][0] as usize;
            if ahead != 0 {
                neighbors[ahead][1] = vertex as u32;
            }
        }
        neighbors
    }
}

#[cfg(test)]
mod tests;
