//! Files that import each other in a circle. An import of a re-export counts as one of the file that defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Source, assert_none, sources};

/// A module's path below the crate, such as `["plan", "model"]`.
type ModulePath = Vec<String>;

/// An import: the path, the name that it has here, and whether others see it.
struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// One file as a module.
#[derive(Default)]
struct Module {
    imports: Vec<Import>,
    /// The names of the items that are defined here.
    items: BTreeSet<String>,
    /// The code without imports.
    body: String,
}

/// All modules of the crate by their paths.
struct Modules(BTreeMap<ModulePath, Module>);

#[test]
fn no_files_import_each_other_in_a_circle() {
    let modules = Modules::new(sources());
    let edges = modules.edges();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 300, "the test finds few imports");
    let joined =
        |circle: &Vec<ModulePath>| circle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" <-> ");
    assert_none(circles(&edges).iter().map(joined).collect());
}

#[test]
fn a_circle_is_seen_through_re_exports() {
    let source = |path: &str, code: &str| Source { path: Path::new(path).to_path_buf(), code: code.to_owned() };
    let modules = Modules::new(vec![
        source("lib.rs", "mod a;"),
        source("a/mod.rs", "mod b;\nmod c;\npub use b::{One as First, two};\npub use c::*;"),
        source("a/b.rs", "use super::Three;\npub struct One;\npub fn two() {}"),
        source("a/c.rs", "pub struct Three;\nfn f() { crate::a::First; }"),
        source("a/d.rs", "use super::{self, Three};\nfn f() { super::two(); }"),
        source("a/e.rs", "use super::f::OfMacro;\npub struct Four;"),
        source("a/f.rs", "use super::e::Four;\ndeclare!(OfMacro);"),
    ]);
    let found = circles(&modules.edges());
    let path = |name: &str| vec!["a".to_owned(), name.to_owned()];
    assert_eq!(found, [vec![path("b"), path("c")], vec![path("e"), path("f")]]);
}

impl Modules {
    fn new(sources: Vec<Source>) -> Self {
        let modules = sources.into_iter().filter(|source| source.path != Path::new("main.rs"));
        Self(modules.map(|source| (module_path(&source.path), Module::new(&source.code))).collect())
    }

    /// The files that each file imports from.
    fn edges(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let of = |(path, module): (&ModulePath, &Module)| {
            let used = module.imports.iter().filter(|import| !import.is_public).map(|import| &import.path);
            let mut found = BTreeSet::new();
            for used in used {
                let target = self.absolute(path, used).and_then(|used| Some((self.define(&used, 0)?, used)));
                // A module that is imported whole is used by the paths that begin with its name.
                found.extend(target.filter(|(defined, used)| defined != used).map(|(defined, _)| defined));
            }
            for used in paths(&module.body) {
                let import = module.imports.iter().find(|import| import.name == used[0]);
                let used = match import {
                    Some(import) => import.path.iter().chain(&used[1..]).cloned().collect(),
                    None => used,
                };
                found.extend(self.absolute(path, &used).and_then(|used| self.define(&used, 0)));
            }
            found.remove(path);
            (path.clone(), found)
        };
        self.0.iter().map(of).collect()
    }

    /// A path from the crate on; `None` for one that leads out of it.
    fn absolute(&self, from: &ModulePath, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" | "super" => {
                let above = path.iter().take_while(|part| *part == "super").count();
                let rest = path.iter().skip_while(|part| *part == "super" || *part == "self");
                Some(from.get(..from.len().checked_sub(above)?)?.iter().chain(rest).cloned().collect())
            }
            _ => {
                let child: ModulePath = from.iter().chain([first]).cloned().collect();
                self.0.contains_key(&child).then(|| from.iter().chain(path).cloned().collect())
            }
        }
    }

    /// The file that defines what an absolute path leads to.
    fn define(&self, path: &[String], depth: usize) -> Option<ModulePath> {
        /// No re-export is passed on more often.
        const DEEPEST: usize = 8;
        let end = (0..=path.len()).rev().find(|&end| self.0.contains_key(&path[..end]))?;
        let (own, rest) = path.split_at(end);
        let module = &self.0[own];
        let Some(name) = rest.first().filter(|name| *name != "*" && !module.items.contains(*name)) else {
            return Some(own.to_vec());
        };
        if depth == DEEPEST {
            return None;
        }
        let follow = |import: &Import, rest: &[String]| {
            let path: Vec<String> = import.path.iter().filter(|part| *part != "*").chain(rest).cloned().collect();
            self.define(&self.absolute(&own.to_vec(), &path)?, depth + 1)
        };
        match module.imports.iter().find(|import| import.name == *name) {
            Some(import) => follow(import, &rest[1..]),
            None => {
                let mut globs = module.imports.iter().filter(|import| import.name == "*");
                // A macro makes a name that is found nowhere.
                globs.find_map(|import| follow(import, rest)).or_else(|| Some(own.to_vec()))
            }
        }
    }
}

impl Module {
    fn new(code: &str) -> Self {
        let mut module = Self::default();
        let mut rest = code;
        while let Some((before, is_public, tree, after)) = next_import(rest) {
            module.body.push_str(before);
            expand(tree, &[], &mut |path, name| module.imports.push(Import { path, name, is_public }));
            rest = after;
        }
        module.body.push_str(rest);
        module.items = items(&module.body);
        module
    }
}

/// The code before the next `use`, whether that is public, its tree, and the code after it.
fn next_import(code: &str) -> Option<(&str, bool, &str, &str)> {
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let declared = match trimmed.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map(|(_, rest)| rest),
            Some(rest) => rest.strip_prefix(' '),
            None => None,
        };
        if declared.unwrap_or(trimmed).starts_with("use ") {
            let (start, end) = (code[at..].find("use ")? + at + 4, code[at..].find(';')? + at);
            return Some((&code[..at], declared.is_some(), &code[start..end], &code[end + 1..]));
        }
        at += line.len();
    }
    None
}

/// Tells each path of a tree of imports, and its name.
fn expand(tree: &str, prefix: &[String], tell: &mut dyn FnMut(Vec<String>, String)) {
    let tree = tree.trim();
    let (own, list) = match tree.split_once('{') {
        Some((own, list)) => (own, list.strip_suffix('}')),
        None => (tree, None),
    };
    let (own, alias) = own.split_once(" as ").map_or((own, None), |(own, alias)| (own, Some(alias.trim())));
    let parts = own.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
    let mut path: Vec<String> = prefix.iter().cloned().chain(parts).collect();
    let Some(list) = list else {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = alias.map(str::to_owned).or_else(|| path.last().cloned()).unwrap_or_default();
        return tell(path, name);
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !list[start..at].trim().is_empty() {
                    expand(&list[start..at], &path, tell);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The names of the items that code defines at its outermost level.
fn items(code: &str) -> BTreeSet<String> {
    const KINDS: &[&str] =
        &["fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod", "macro_rules!"];
    let mut items = BTreeSet::new();
    for line in code.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kind = words.iter().take(5).rposition(|word| KINDS.contains(word));
        let name = kind.and_then(|at| words.get(at + 1)).map(|name| name.split(|c: char| !is_word(c)).next());
        items.extend(name.flatten().map(str::to_owned));
    }
    items
}

/// The paths of two parts or more in code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let begin = code[..at].rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        let is_first = !code[..begin].ends_with("::") && !code[..begin].ends_with('.') && begin < at;
        if !is_first {
            continue;
        }
        let end = code[begin..].find(|c| !is_word(c) && c != ':').map_or(code.len(), |end| end + begin);
        let path: Vec<String> = code[begin..end].split("::").map(str::to_owned).collect();
        found.push(path.into_iter().take_while(|part| !part.is_empty()).collect());
    }
    found.retain(|path: &Vec<String>| path.len() > 1);
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The sets of modules each of which leads to every other.
fn circles(edges: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Vec<Vec<ModulePath>> {
    let reach = |from: &ModulePath| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in edges.get(module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = edges.keys().map(|path| (path, reach(path))).collect();
    let mut circles: Vec<Vec<ModulePath>> = Vec::new();
    for (path, own) in &reached {
        if own.contains(*path) && !circles.iter().any(|circle| circle.contains(path)) {
            let back = |other: &&ModulePath| reached.get(*other).is_some_and(|reached| reached.contains(*path));
            circles.push(own.iter().filter(back).cloned().collect());
        }
    }
    circles
}

fn module_path(file: &Path) -> ModulePath {
    let path = file.with_extension("");
    let mut parts: ModulePath = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}
