//! Prepares the tables of a scan for decoding.

use crate::block::Coder;
use crate::error::Result;
use crate::frame::ScanHeader;
use crate::header::Header;
use crate::huffman::{Class, Codes, Table};
use crate::pairs::Pairs;
use crate::tables::{Quantization, Tables};

/// A component of a sequential scan, with its tables.
#[derive(Debug, Clone)]
pub(crate) struct Component<'a> {
    pub(crate) quantization: Quantization,
    dc: Codes<'a>,
    ac: Codes<'a>,
}

impl<'a> Component<'a> {
    /// Returns the components of `scan`, with the tables at the time of the scan.
    pub(crate) fn of_scan(
        header: &Header<'_>,
        tables: &Tables<'a>,
        scan: &ScanHeader,
    ) -> Result<Vec<Self>> {
        let component = |selected: &crate::frame::Selected| {
            let component = &header.frame.components[selected.component];
            Ok(Self {
                quantization: tables.quantization_table(component.quantization)?,
                dc: tables.dc(selected.dc, true)?,
                ac: tables.ac(selected.ac, true)?,
            })
        };
        scan.components.iter().map(component).collect()
    }
}

/// The Huffman tables of a component, prepared for decoding.
struct Codings {
    dc: Table,
    ac: Table,
    pairs: Pairs,
}

/// The Huffman tables of several components. Equal tables are stored once, because fewer tables
/// stay in a nearer cache.
pub(crate) struct Shared {
    codings: Vec<Codings>,
    /// For each component, the index of its tables in `codings`.
    places: Vec<usize>,
}

impl Shared {
    #[inline(always)]
    pub(crate) fn new(components: &[Component<'_>]) -> Result<Self> {
        let (mut codings, mut places) = (Vec::new(), Vec::<usize>::new());
        for component in components {
            let same = |other: &Component<'_>| other.dc == component.dc && other.ac == component.ac;
            let known = components[..places.len()].iter().position(same);
            places.push(known.map_or(codings.len(), |before| places[before]));
            if known.is_none() {
                let dc = Table::new(&component.dc, Class::Dc)?;
                let ac = Table::new(&component.ac, Class::Ac)?;
                let pairs = Pairs::new(&ac);
                codings.push(Codings { dc, ac, pairs });
            }
        }
        Ok(Self { codings, places })
    }

    pub(crate) fn coders(&self) -> Vec<Coder<'_>> {
        let coder = |&place: &usize| {
            let Codings { dc, ac, pairs } = &self.codings[place];
            Coder { dc, ac, pairs, prediction: 0 }
        };
        self.places.iter().map(coder).collect()
    }
}
