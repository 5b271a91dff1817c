//! Mutations of JSON and TOML that keep the text well-formed: values, keys and their places.

use serde_json::{Map, Value, json};

use super::bytes::EXTREMES;
use super::random::Random;

/// Strings that are valid somewhere, or at which a reader of text goes wrong.
const STRINGS: [&str; 20] = [
    "",
    " ",
    "a",
    "##",
    "\u{0}",
    "\u{1b}[31m",
    "\u{2581}",
    "\u{feff}é\u{301}日本\u{1f642}",
    "../../../../etc/passwd",
    "/dev/zero",
    "NaN",
    "-1",
    "1e999",
    "v_prediction",
    "(a|b)*c{1,9999}",
    "(((((((((((((((((((((((((((((((((((((((((((((((((((((((((a*)*)*)*)*",
    "(?:(?:a{1,1000}){1,1000}){1,1000}",
    "(a+a+)+b",
    "(?:a|a?)*z",
    "\\p{Nothing}[[[",
];

/// The place of the first of those that are regular expressions.
const REGULAR: usize = 14;

/// A value of another type, or of the same type and out of the ordinary.
fn odd(random: &mut Random) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => json!(random.pick(&EXTREMES)),
        3 => json!(-(random.pick(&EXTREMES).cast_signed() >> 1)),
        4 => json!(*random.pick(&[0.0, -0.0, 0.5, -1.0, 1e-320, 1e-7, 1e15, 1e300, -1e308, f64::MAX])),
        5 | 6 => json!(random.pick(&STRINGS)),
        7 => json!("a".repeat(1 + random.below(5000))),
        8 => json!([]),
        9 => json!({}),
        10 => (0..1 + random.below(120)).fold(json!(1), |inner, _| json!([inner])),
        _ => multiplying(1 + random.below(30)),
    }
}

/// Replacements within replacements, each of which makes its text longer.
fn multiplying(depth: usize) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"});
    json!({"type": "Sequence", "normalizers": vec![replace; depth]})
}

/// One mutation of a JSON document.
pub fn mutate_json(random: &mut Random, value: &mut Value, other: &Value) {
    let donor = nth(other, &mut random.below(size(other))).cloned();
    // Small parts of a document say more than the thousands of entries of a vocabulary.
    let target = descend(random, value);
    match (random.below(8), target) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).cloned();
            key.and_then(|key| map.remove(&key));
        }
        (1, Value::Object(map)) if !map.is_empty() => rename(random, map),
        (0, Value::Array(items)) if !items.is_empty() => drop(items.remove(random.below(items.len()))),
        (1, Value::Array(items)) if !items.is_empty() => {
            let copy = items[random.below(items.len())].clone();
            let times = if random.one_in(8) { 1 + random.below(300) } else { 1 };
            items.extend(std::iter::repeat_n(copy, times));
        }
        (2, Value::Array(items)) if items.len() > 1 => {
            let (one, two) = (random.below(items.len()), random.below(items.len()));
            items.swap(one, two);
        }
        (2 | 3, Value::Number(number)) => {
            let step = *random.pick(&[1, -1, 2, -2, 1000]);
            let near = number.as_i64().map(|n| json!(n.wrapping_add(step)));
            *number = match near.or_else(|| number.as_f64().map(|n| json!(-n))) {
                Some(Value::Number(number)) => number,
                _ => 0.into(),
            };
        }
        // A regular expression becomes another, such as one that takes its reader forever.
        (2 | 3, Value::String(text)) if text.contains(['\\', '|']) => {
            *text = (*random.pick(&STRINGS[REGULAR..])).to_owned();
        }
        (2..=4, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            let donor = random.pick(&STRINGS).as_bytes();
            super::bytes::mutate(random, &mut bytes, donor);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (4 | 5, target) => {
            if let Some(donor) = donor {
                *target = donor;
            }
        }
        (_, target) => *target = odd(random),
    }
}

/// Gives a member of an object another name, or that of another member.
pub fn rename(random: &mut Random, map: &mut Map<String, Value>) {
    let key = map.keys().nth(random.below(map.len())).cloned().unwrap_or_default();
    let new = match random.below(3) {
        0 => random.pick(&STRINGS).to_string(),
        1 => map.keys().nth(random.below(map.len())).cloned().unwrap_or_default(),
        _ => format!("{key}_2"),
    };
    if let Some(value) = map.remove(&key) {
        map.insert(new, value);
    }
}

/// Lists of more members than this are data, such as a vocabulary, each member as good as another.
const DATA: usize = 40;

/// A random part of a document: one of all that are no member of a long list, or by going down from the whole, where at each
/// level any member is as likely as another.
fn descend<'v>(random: &mut Random, value: &'v mut Value) -> &'v mut Value {
    let mut paths = vec![String::new()];
    if random.one_in(2) {
        fields(value, "", &mut paths);
    } else {
        let mut path = String::new();
        while let Some(members) = value.pointer(&path).map(members).filter(|members| !members.is_empty()) {
            if random.one_in(6) {
                break;
            }
            path += &format!("/{}", random.pick(&members));
        }
        paths = vec![path];
    }
    let path = random.pick(&paths);
    if value.pointer(path).is_none() {
        return value;
    }
    match value.pointer_mut(path) {
        Some(part) => part,
        None => unreachable!("it was there"),
    }
}

/// The names of a value's members, as a JSON pointer has them.
fn members(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => (0..items.len()).map(|at| at.to_string()).collect(),
        Value::Object(map) => map.keys().map(|key| key.replace('~', "~0").replace('/', "~1")).collect(),
        _ => Vec::new(),
    }
}

fn fields(value: &Value, path: &str, into: &mut Vec<String>) {
    let inner = |name: &str| match value {
        Value::Array(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)),
        Value::Object(map) => map.get(&name.replace("~1", "/").replace("~0", "~")),
        _ => None,
    };
    let members = members(value);
    for name in members.iter().filter(|_| members.len() <= DATA) {
        let path = format!("{path}/{name}");
        into.push(path.clone());
        if let Some(inner) = inner(name) {
            fields(inner, &path, into);
        }
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// The part of this number, counted from the outside in.
fn nth<'v>(value: &'v Value, number: &mut usize) -> Option<&'v Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, number)),
        Value::Object(map) => map.values().find_map(|item| nth(item, number)),
        _ => None,
    }
}

/// One mutation of a TOML document: by way of JSON, where TOML has what JSON lacks only in dates, and else as lines.
pub fn mutate_toml(random: &mut Random, text: &str, other: &str) -> Option<String> {
    let mut value = serde_json::to_value(text.parse::<toml::Table>().ok()?).ok()?;
    let other = serde_json::to_value(other.parse::<toml::Table>().ok()?).ok()?;
    mutate_json(random, &mut value, &other);
    toml::to_string(&without_null(value)?).ok()
}

/// TOML has no null.
fn without_null(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_null).collect())),
        Value::Object(map) => {
            Some(Value::Object(map.into_iter().filter_map(|(k, v)| Some((k, without_null(v)?))).collect()))
        }
        Value::Number(number) if number.as_i64().is_none() && number.is_u64() => Some(json!(i64::MAX)),
        other => Some(other),
    }
}
