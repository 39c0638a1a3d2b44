//! Determines which columns contain images and labels, and reads the class names that the
//! `datasets` library stores.

use parquet::basic::Type;
use parquet::file::metadata::FileMetaData;
use parquet::schema::types::SchemaDescriptor;

/// Names of the image column, the most likely first.
const IMAGE_NAMES: [&str; 8] = ["image", "img", "jpg", "jpeg", "png", "webp", "bytes", "picture"];
/// Names of the label column, the most likely first.
const LABEL_NAMES: [&str; 4] = ["label", "labels", "fine_label", "cls"];

/// Indices of the relevant leaf columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// The bytes of the images.
    pub(super) image: usize,
    /// The file names of the images.
    pub(super) path: Option<usize>,
    pub(super) label: Option<usize>,
}

impl Columns {
    /// Finds the columns of a schema. If no column can be identified as that of the images, returns
    /// the names of all columns as the error.
    pub(super) fn find(schema: &SchemaDescriptor) -> Result<Self, String> {
        let plain = |i: usize| schema.column(i).max_rep_level() == 0;
        let path = |i: usize| schema.column(i).path().string();
        let leaves: Vec<usize> = (0..schema.num_columns()).filter(|&i| plain(i)).collect();
        let is_bytes = |i: usize| schema.column(i).physical_type() == Type::BYTE_ARRAY;
        let named = |name: &str| leaves.iter().copied().find(|&i| path(i) == name);

        let mut candidates: Vec<usize> = leaves
            .iter()
            .copied()
            .filter(|&i| is_bytes(i) && (is_group_of_bytes(&path(i)) || is_binary(schema, i)))
            .collect();
        let rank = |&i: &usize| {
            let path = path(i);
            let name = path.trim_end_matches(".bytes");
            IMAGE_NAMES.iter().position(|known| *known == name).unwrap_or(IMAGE_NAMES.len())
        };
        candidates.sort_by_key(rank);
        let image = match candidates[..] {
            [only] => only,
            [first, ..] if rank(&first) < IMAGE_NAMES.len() => first,
            _ => {
                let names: Vec<String> = (0..schema.num_columns()).map(path).collect();
                return Err(names.join(", "));
            }
        };
        let group = path(image).strip_suffix(".bytes").map(|group| format!("{group}.path"));
        Ok(Self {
            image,
            path: group.and_then(|name| named(&name)).filter(|&i| is_bytes(i)),
            label: LABEL_NAMES.iter().find_map(|name| named(name)),
        })
    }
}

fn is_group_of_bytes(path: &str) -> bool {
    path.ends_with(".bytes")
}

/// Returns whether the bytes of a column are not declared to be text or anything else.
fn is_binary(schema: &SchemaDescriptor, column: usize) -> bool {
    let column = schema.column(column);
    column.logical_type_ref().is_none()
        && column.converted_type() == parquet::basic::ConvertedType::NONE
}

/// Returns the names of the classes from the description that the `datasets` library stores in the
/// file's metadata.
pub(super) fn class_names(metadata: &FileMetaData, label: &str) -> Option<Vec<String>> {
    let pairs = metadata.key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let description: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = description.pointer("/info/features")?.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}
