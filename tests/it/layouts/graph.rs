//! Rewrites ONNX files: a graph with other names, element types and axes that computes the same.

/// Numbers of ONNX's element types.
pub const F32: u64 = 1;
pub const I32: u64 = 6;
pub const I64: u64 = 7;
pub const BOOL: u64 = 9;
pub const F16: u64 = 10;
pub const F64: u64 = 11;

/// The fields of a GraphProto and of the messages in it that are rewritten.
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const INPUT: u64 = 11;
const OUTPUT: u64 = 12;
const VALUE_INFO: u64 = 13;

#[derive(Clone)]
enum Value {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

/// A protobuf message: its fields in their order.
#[derive(Clone, Default)]
struct Message(Vec<(u64, Value)>);

impl Message {
    fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Fixed(take(&mut bytes, 8).to_vec()),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Value::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => Value::Fixed(take(&mut bytes, 4).to_vec()),
                other => panic!("a field of wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, value) in &self.0 {
            match value {
                Value::Number(n) => {
                    write_varint(&mut out, tag << 3);
                    write_varint(&mut out, *n);
                }
                Value::Fixed(bytes) => {
                    write_varint(&mut out, tag << 3 | if bytes.len() == 8 { 1 } else { 5 });
                    out.extend_from_slice(bytes);
                }
                Value::Bytes(bytes) => {
                    write_varint(&mut out, tag << 3 | 2);
                    write_varint(&mut out, bytes.len() as u64);
                    out.extend_from_slice(bytes);
                }
            }
        }
        out
    }

    fn number(mut self, tag: u64, n: u64) -> Self {
        self.0.push((tag, Value::Number(n)));
        self
    }

    fn bytes(mut self, tag: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((tag, Value::Bytes(bytes.as_ref().to_vec())));
        self
    }

    /// The first field of this number, as a text.
    fn text(&self, tag: u64) -> String {
        let text = |(at, value): &(u64, Value)| match value {
            Value::Bytes(bytes) if *at == tag => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        self.0.iter().find_map(text).unwrap_or_default()
    }

    fn message(&self, tag: u64) -> Self {
        let message = |(at, value): &(u64, Value)| match value {
            Value::Bytes(bytes) if *at == tag => Some(Self::parse(bytes)),
            _ => None,
        };
        self.0.iter().find_map(message).unwrap_or_default()
    }

    /// Rewrites the messages under this number.
    fn each(&mut self, tag: u64, mut change: impl FnMut(&mut Self)) {
        for (at, value) in &mut self.0 {
            if *at == tag
                && let Value::Bytes(bytes) = value
            {
                let mut message = Self::parse(bytes);
                change(&mut message);
                *bytes = message.build();
            }
        }
    }

    fn replace(&mut self, tag: u64, from: &str, to: &str) {
        for (at, value) in &mut self.0 {
            if *at == tag
                && let Value::Bytes(bytes) = value
                && bytes == from.as_bytes()
            {
                *bytes = to.as_bytes().to_vec();
            }
        }
    }
}

/// An ONNX file to rewrite.
pub struct Graph {
    model: Message,
    graph: Message,
}

impl Graph {
    pub fn parse(bytes: &[u8]) -> Self {
        let model = Message::parse(bytes);
        Self { graph: model.message(7), model }
    }

    pub fn build(mut self) -> Vec<u8> {
        let graph = self.graph;
        self.model.each(7, |old| *old = graph.clone());
        self.model.build()
    }

    /// Renames an input, an output or what lies between, everywhere.
    pub fn rename(&mut self, from: &str, to: &str) -> &mut Self {
        assert!(self.has(INPUT, from) || self.has(OUTPUT, from), "there is no {from}");
        for tag in [INPUT, OUTPUT, VALUE_INFO] {
            self.graph.each(tag, |info| info.replace(1, from, to));
        }
        self.rename_in_nodes(from, to);
        self
    }

    fn rename_in_nodes(&mut self, from: &str, to: &str) {
        self.graph.each(NODE, |node| {
            node.replace(1, from, to);
            node.replace(2, from, to);
        });
    }

    fn has(&self, tag: u64, name: &str) -> bool {
        let is_it = |(at, value): &(u64, Value)| matches!(value, Value::Bytes(b) if *at == tag && Message::parse(b).text(1) == name);
        self.graph.0.iter().any(is_it)
    }

    /// Declares an input anew and makes the graph compute as before: it casts what comes, and takes a list for the
    /// number that is in it where it took a number.
    pub fn input(&mut self, name: &str, dtype: u64, shape: &str) -> &mut Self {
        let old = self.declare(INPUT, name, dtype, shape);
        let (inner, cast) = (format!("{name}.inner"), format!("{name}.cast"));
        let becomes_number = old.1 == 0 && !shape.is_empty();
        if old.0 == dtype && !becomes_number {
            return self;
        }
        self.rename_in_nodes(name, &inner);
        let between = if becomes_number { &cast } else { &inner };
        let mut nodes = vec![node("Cast", name, between, "to", old.0)];
        if becomes_number {
            nodes.push(node("ReduceMax", &cast, &inner, "keepdims", 0));
        }
        self.graph.0.splice(0..0, nodes);
        self
    }

    /// Declares an input with an axis more in front, along which the graph then takes the largest.
    pub fn batched(&mut self, name: &str, shape: &str) -> &mut Self {
        let (dtype, _) = self.declare(INPUT, name, F32, shape);
        assert_eq!(dtype, F32, "{name} is not float32");
        let inner = format!("{name}.inner");
        self.rename_in_nodes(name, &inner);
        let axes = Message::default().bytes(1, "axes").number(8, 0).number(20, 7);
        let (tag, Value::Bytes(reduce)) = node("ReduceMax", name, &inner, "keepdims", 0) else { return self };
        let reduce = Message::parse(&reduce).bytes(5, axes.build());
        self.graph.0.insert(0, (tag, Value::Bytes(reduce.build())));
        self
    }

    /// Declares an input anew and leaves the graph as it is, which then cannot run.
    pub fn redeclare(&mut self, name: &str, dtype: u64, shape: &str) -> &mut Self {
        self.declare(INPUT, name, dtype, shape);
        self
    }

    /// Declares an output anew; the graph casts what it gives.
    pub fn output(&mut self, name: &str, dtype: u64, shape: &str) -> &mut Self {
        let old = self.declare(OUTPUT, name, dtype, shape);
        if old.0 != dtype {
            let inner = format!("{name}.inner");
            self.rename_in_nodes(name, &inner);
            let last = self.graph.0.iter().rposition(|(tag, _)| *tag == NODE).map_or(0, |at| at + 1);
            self.graph.0.insert(last, node("Cast", &inner, name, "to", dtype));
        }
        self
    }

    /// Fixes the first axis of all inputs and outputs that have axes, but for lists of one.
    pub fn rows(&mut self, rows: u64) -> &mut Self {
        for tag in [INPUT, OUTPUT] {
            self.graph.each(tag, |info| {
                let mut first = true;
                info.each(2, |kind| {
                    kind.each(1, |tensor| {
                        tensor.each(2, |shape| {
                            shape.each(1, |dim| {
                                let is_name = dim.0.iter().any(|(tag, _)| *tag == 2);
                                if std::mem::take(&mut first) && is_name {
                                    *dim = Message::default().number(1, rows);
                                }
                            });
                        });
                    });
                });
            });
        }
        self
    }

    /// Writes another type and other axes over a declaration; gives the old type and number of axes.
    fn declare(&mut self, tag: u64, name: &str, dtype: u64, shape: &str) -> (u64, usize) {
        let mut old = None;
        self.graph.each(tag, |info| {
            if info.text(1) == name {
                let tensor = info.message(2).message(1);
                let kind = tensor.0.iter().find_map(|(at, value)| match value {
                    Value::Number(n) if *at == 1 => Some(*n),
                    _ => None,
                });
                old = Some((kind.unwrap_or(0), tensor.message(2).0.len()));
                *info = value(name, dtype, shape);
            }
        });
        old.unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Adds an input that no node reads, as tracing leaves them behind.
    pub fn leftover(&mut self, name: &str, dtype: u64, shape: &str) -> &mut Self {
        self.graph.0.push((INPUT, Value::Bytes(value(name, dtype, shape).build())));
        self
    }

    /// Leaves an output out.
    pub fn without_output(&mut self, name: &str) -> &mut Self {
        self.without(OUTPUT, name)
    }

    fn without(&mut self, tag: u64, name: &str) -> &mut Self {
        assert!(self.has(tag, name), "there is no {name}");
        self.graph
            .0
            .retain(|(at, value)| !matches!(value, Value::Bytes(b) if *at == tag && Message::parse(b).text(1) == name));
        self
    }

    /// Makes zeros of the float inputs whose names begin like this.
    pub fn zeros(&mut self, prefix: &str) -> &mut Self {
        let names: Vec<String> = self.names(INPUT).into_iter().filter(|name| name.starts_with(prefix)).collect();
        assert!(!names.is_empty(), "no input begins with {prefix}");
        for name in names {
            self.without(INPUT, &name);
            let tensor = Message::default().number(1, 1).number(2, F32).bytes(8, &name).bytes(9, [0; 4]);
            self.graph.0.push((INITIALIZER, Value::Bytes(tensor.build())));
        }
        self
    }

    /// Renames every input that begins with `prefix` and ends with `suffix` to what is between.
    pub fn shorten(&mut self, prefix: &str, suffix: &str) -> &mut Self {
        for name in self.names(INPUT) {
            if let Some(short) = name.strip_suffix(suffix).filter(|short| short.starts_with(prefix)) {
                self.rename(&name, short);
            }
        }
        self
    }

    fn names(&self, tag: u64) -> Vec<String> {
        let name = |(at, value): &(u64, Value)| match value {
            Value::Bytes(bytes) if *at == tag => Some(Message::parse(bytes).text(1)),
            _ => None,
        };
        self.graph.0.iter().filter_map(name).collect()
    }

    /// Names the file beside the graph in which its weights are.
    pub fn weights_in(&mut self, file: &str) -> &mut Self {
        self.graph.each(INITIALIZER, |tensor| {
            tensor.each(13, |entry| {
                if entry.text(1) == "location" {
                    *entry = Message::default().bytes(1, "location").bytes(2, file);
                }
            });
        });
        self
    }

    /// Moves the weights that the file holds into a file of this name beside it, and returns that file's contents.
    pub fn weights_out(&mut self, file: &str) -> Vec<u8> {
        /// Numbers of `TensorProto.raw_data`, `external_data` and `data_location`.
        const RAW_DATA: u64 = 9;
        const EXTERNAL_DATA: u64 = 13;
        const DATA_LOCATION: u64 = 14;
        let mut out = Vec::new();
        self.graph.each(INITIALIZER, |tensor| {
            let raw = |(tag, value): &(u64, Value)| match value {
                Value::Bytes(bytes) if *tag == RAW_DATA => Some(bytes.clone()),
                _ => None,
            };
            let Some(values) = tensor.0.iter().find_map(raw) else { return };
            tensor.0.retain(|(tag, _)| *tag != RAW_DATA);
            let (offset, length) = (out.len().to_string(), values.len().to_string());
            for (key, value) in [("location", file), ("offset", &offset), ("length", &length)] {
                let entry = Message::default().bytes(1, key).bytes(2, value);
                *tensor = std::mem::take(tensor).bytes(EXTERNAL_DATA, entry.build());
            }
            *tensor = std::mem::take(tensor).number(DATA_LOCATION, 1);
            out.extend(values);
        });
        assert!(!out.is_empty(), "the file holds no weights");
        out
    }
}

/// A declaration; the shape is written like `batch, 4, height, width`, and empty for a number.
fn value(name: &str, dtype: u64, shape: &str) -> Message {
    let mut dims = Message::default();
    for axis in shape.split(',').map(str::trim).filter(|axis| !axis.is_empty()) {
        let dim = match axis.parse() {
            Ok(n) => Message::default().number(1, n),
            Err(_) => Message::default().bytes(2, axis),
        };
        dims = dims.bytes(1, dim.build());
    }
    let tensor = Message::default().number(1, dtype).bytes(2, dims.build());
    let kind = Message::default().bytes(1, tensor.build());
    Message::default().bytes(1, name).bytes(2, kind.build())
}

/// A node with one input, one output and one whole number for an attribute.
fn node(operator: &str, input: &str, output: &str, attribute: &str, number: u64) -> (u64, Value) {
    let attribute = Message::default().bytes(1, attribute).number(3, number).number(20, 2);
    let node = Message::default().bytes(1, input).bytes(2, output).bytes(4, operator).bytes(5, attribute.build());
    (NODE, Value::Bytes(node.build()))
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> &'b [u8] {
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    head
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
