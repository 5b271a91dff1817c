//! `[[condition]]`: conditions other than a prompt.

use std::path::{Path, PathBuf};

use crate::keys::{Item, Table, Value, Writer, integer, reaches_outside};

/// `[[condition]]`: a condition other than a prompt: its source, the graph that encodes it, and the way in which the denoiser
/// takes it. A file may have any number of them. Their states for cross-attention follow those of the prompt, their channels
/// those of the sample, in the order of the tables.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionSpec {
    /// `conditioning`, required: how the denoiser takes it, `"cross-attention"` or `"channels"`.
    pub conditioning: Conditioning,
    /// `boxes`, `label_map`, `depth_map`, `vectors` or `index`, one of which is required: the source of the condition.
    pub source: ConditionSource,
    /// `graph`: the graph that encodes it, the name of a folder of the model directory or a path.
    /// Required for boxes and label maps.
    pub graph: Option<Graph>,
}

/// The way in which a denoiser takes a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditioning {
    /// `"cross-attention"`: states for the cross-attention layers, after those of the prompt.
    CrossAttention,
    /// `"channels"`: channels concatenated to the sample's.
    Channels,
}

/// The source of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum ConditionSource {
    /// `boxes = [{ class = 3, box = [0.1, 0.2, 0.5, 0.9] }]`: things of a class and where they are.
    Boxes(Vec<LayoutBox>),
    /// `label_map = "labels.png"`: an image with a label for each pixel, 8 bits, grey or by palette.
    LabelMap(PathBuf),
    /// `depth_map = "depth.png"`: an image that is the brighter the nearer, 8 or 16 bits. It becomes one channel, from -1
    /// at its darkest to 1.
    DepthMap(PathBuf),
    /// `vectors = "neighbours.npy"`: tokens as they are, float32 `[tokens, width]`.
    Vectors(PathBuf),
    /// `index = "index.safetensors"` and `k = 10`: of the vectors in a file, float32 `[n, width]` under the name
    /// `vectors`, the k nearest to the prompt's.
    Index {
        /// The file.
        path: PathBuf,
        /// The number of vectors that are taken, 1 to 1000.
        k: usize,
    },
}

impl ConditionSource {
    /// The file it comes from: key and path.
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Boxes(_) => None,
            Self::LabelMap(path) => Some(("label_map", path)),
            Self::DepthMap(path) => Some(("depth_map", path)),
            Self::Vectors(path) => Some(("vectors", path)),
            Self::Index { path, .. } => Some(("index", path)),
        }
    }
}

/// An object in a layout.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutBox {
    /// `class`: what it is, as the model numbers it.
    pub class: usize,
    /// `box = [left, top, right, bottom]`: where it is, in shares of the image's width and height.
    pub place: [f64; 4],
    /// `group`: several of a kind as one.
    pub group: bool,
    /// `occluded`: partly behind something else.
    pub occluded: bool,
    /// `depiction`: a drawing or a statue of one.
    pub depiction: bool,
    /// `inside`: seen from within.
    pub inside: bool,
}

/// A reference to a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Graph {
    /// A folder of the model directory, by its bare name.
    Folder(String),
    /// A path with more than one part: a folder or an .onnx file, relative to the pipeline file.
    Path(PathBuf),
}

const SOURCES: [&str; 5] = ["boxes", "label_map", "depth_map", "vectors", "index"];

impl ConditionSpec {
    pub(crate) fn read(mut table: Table<'_>) -> Option<Self> {
        table.require("conditioning", "\"cross-attention\" or \"channels\"");
        let names = ["cross-attention", "channels"];
        let conditioning = table.choice("conditioning", "way of conditioning", &names).map(|name| match name {
            "channels" => Conditioning::Channels,
            _ => Conditioning::CrossAttention,
        });
        let name = table.get("graph").and_then(|item| item.string("a name or a path"));
        let graph = name.and_then(|name| {
            let is_path = name.contains(['/', '\\']) || name.ends_with(".onnx") || reaches_outside(&name).is_some();
            if is_path { table.file_path("graph").map(Graph::Path) } else { Some(Graph::Folder(name)) }
        });
        let given: Vec<&str> = SOURCES.into_iter().filter(|key| table.get(key).is_some()).collect();
        let k = table.integer("k", 1, 1000);
        if k.is_some() && given != ["index"] {
            table.report_at("k", "goes with `index`, and there is none");
        }
        let source = match given.as_slice() {
            ["boxes"] => table.get("boxes").map(|item| ConditionSource::Boxes(boxes(&item))),
            ["label_map"] => table.file_path("label_map").map(ConditionSource::LabelMap),
            ["depth_map"] => table.file_path("depth_map").map(ConditionSource::DepthMap),
            ["vectors"] => table.file_path("vectors").map(ConditionSource::Vectors),
            [_] => table.file_path("index").map(|path| ConditionSource::Index { path, k: k.unwrap_or(10) }),
            [] => {
                table.report(format!("says not where it comes from; expected one of {}", SOURCES.join(", ")));
                None
            }
            [first, second, ..] => {
                table.report_at(second, format!("given beside `{first}`; keep one"));
                None
            }
        };
        let needs_graph = matches!(source, Some(ConditionSource::Boxes(_) | ConditionSource::LabelMap(_)));
        if needs_graph && graph.is_none() {
            table.require("graph", "the folder of the graph that makes tensors of it");
        }
        let is_attended = matches!(
            source,
            Some(ConditionSource::Vectors(_) | ConditionSource::Index { .. } | ConditionSource::Boxes(_))
        );
        if is_attended && conditioning == Some(Conditioning::Channels) {
            table.report_at("conditioning", "expected \"cross-attention\", as for all boxes and vectors");
        }
        if matches!(source, Some(ConditionSource::DepthMap(_))) {
            if graph.is_some() {
                table.report_at("graph", "given beside `depth_map`, which goes to the denoiser as it is");
            }
            if conditioning == Some(Conditioning::CrossAttention) {
                table.report_at("conditioning", "expected \"channels\", as for all depth maps");
            }
        }
        table.finish();
        Some(Self { conditioning: conditioning?, source: source?, graph })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.array_table("condition");
        let is_attended = self.conditioning == Conditioning::CrossAttention;
        writer.key("conditioning", if is_attended { "cross-attention" } else { "channels" });
        match &self.source {
            ConditionSource::Boxes(boxes) => {
                writer.key("boxes", boxes.iter().map(LayoutBox::value).collect::<Vec<_>>())
            }
            ConditionSource::LabelMap(path) => writer.path("label_map", path),
            ConditionSource::DepthMap(path) => writer.path("depth_map", path),
            ConditionSource::Vectors(path) => writer.path("vectors", path),
            ConditionSource::Index { path, k } => {
                writer.path("index", path);
                writer.key("k", integer(*k));
            }
        }
        match &self.graph {
            Some(Graph::Folder(name)) => writer.key("graph", name.clone()),
            Some(Graph::Path(path)) => writer.path("graph", path),
            None => {}
        }
    }
}

impl LayoutBox {
    fn value(&self) -> toml::Value {
        let mut table = toml::map::Map::new();
        table.insert("class".into(), integer(self.class));
        table.insert("box".into(), self.place.to_vec().into());
        for (name, on) in self.modifiers() {
            if on {
                table.insert(name.into(), true.into());
            }
        }
        table.into()
    }

    /// The further attributes of the object, in the order of their bits.
    pub fn modifiers(&self) -> [(&'static str, bool); 4] {
        let Self { group, occluded, depiction, inside, .. } = *self;
        [("group", group), ("occluded", occluded), ("depiction", depiction), ("inside", inside)]
    }
}

fn boxes(item: &Item<'_>) -> Vec<LayoutBox> {
    if let Value::Array(items) = item.value()
        && items.is_empty()
    {
        item.report("expected at least one { class = …, box = [left, top, right, bottom] }, found none");
    }
    item.tables().into_iter().map(layout_box).collect()
}

fn layout_box(mut table: Table<'_>) -> LayoutBox {
    const EXPECTED: &str = "[left, top, right, bottom] in shares of the image, 0 to 1";
    table.require("class", "a class");
    table.require("box", EXPECTED);
    let class = table.integer("class", 0, 1_000_000).unwrap_or(0);
    let place = table.get("box").and_then(|item| {
        let numbers = item.numbers(EXPECTED)?;
        let place = <[f64; 4]>::try_from(numbers.clone()).ok();
        let place = place.filter(|p| p.iter().all(|v| (0.0..=1.0).contains(v)) && p[0] < p[2] && p[1] < p[3]);
        if place.is_none() {
            item.report(format!("expected {EXPECTED}, found {numbers:?}"));
        }
        place
    });
    let mut switch = |key: &str| table.get(key).and_then(|item| item.switch()).unwrap_or(false);
    let (group, occluded) = (switch("group"), switch("occluded"));
    let (depiction, inside) = (switch("depiction"), switch("inside"));
    table.finish();
    LayoutBox { class, place: place.unwrap_or([0.0, 0.0, 1.0, 1.0]), group, occluded, depiction, inside }
}
