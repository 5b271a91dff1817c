//! The house keeps its shape: who may use whom, and who may speak to the world. See ARCHITECTURE.md.

mod circles;
mod lengths;
mod words;

use std::path::{Path, PathBuf};

/// The rooms of `src/` from the ground up. A room uses rooms of lower floors and itself, never its own floor's others.
const FLOORS: &[&[&str]] = &[
    &["kernels", "error", "memory", "guard", "aliases", "byte_size", "elementary", "family"],
    &["tensor", "rng", "files", "tiles", "threads"],
    &["scheduler", "image", "npy"],
    &["metadata", "keys"],
    &["bundle", "session", "plot"],
    &["rewrite"],
    &["text", "vae", "denoise", "conditioner", "lora", "graph_cache", "quantize"],
    &["task"],
    &["spec"],
    &["plan"],
    &["execution"],
    &["engine"],
    &["batch"],
    &["cli"],
];

/// The one place outside the command line that touches the environment: ONNX Runtime takes the switch that turns its
/// telemetry off from a variable only, and it has to stand before the library is loaded, whoever loads it.
const TELEMETRY_SWITCH: &str = "session/library/mod.rs";

/// One source file: its path below `src/`, and its code without comments and without its unit tests.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    /// The room: the folder or file right below `src/`.
    fn room(&self) -> String {
        let first = self.path.components().next().expect("a path has a beginning").as_os_str().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    /// The module's own name: that of the file, or of the folder for `mod.rs`.
    fn module(&self) -> String {
        let name = self.path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        match self.path.parent().and_then(Path::file_name) {
            Some(folder) if name == "mod" => folder.to_string_lossy().into_owned(),
            _ => name,
        }
    }
}

fn sources() -> Vec<Source> {
    fn collect(folder: &Path, root: &Path, into: &mut Vec<Source>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                collect(&path, root, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source is text");
                let path = path.strip_prefix(root).expect("a source is below src").to_path_buf();
                into.push(Source { path, code: code_of(&text) });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    collect(&root, &root, &mut all);
    assert!(all.len() > 20, "only {} sources found", all.len());
    all
}

/// A source without the lines that are comments, and without its module of tests, which stands last.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(code).collect::<Vec<_>>().join("\n")
}

/// True if the code has a word with nothing around it that would make it another word.
fn names(code: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(joins) && word.starts_with(joins);
        let after = code[at + word.len()..].chars().next().is_some_and(joins) && word.ends_with(joins);
        !before && !after
    })
}

/// The rooms whose names follow `crate::`, also within braces.
fn used_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        // `$crate::` and the like are the same crate.
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0usize;
            let mut word = String::new();
            let mut first = true;
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.push(std::mem::take(&mut word));
                        first = true;
                    }
                    c if depth == 0 && first && (c.is_alphanumeric() || c == '_') => word.push(c),
                    ':' if depth == 0 => first = false,
                    _ => {}
                }
            }
            rooms.push(word);
        } else {
            rooms.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A source's code without what stands between quotation marks.
fn without_texts(code: &str) -> String {
    let mut kept = String::new();
    let mut chars = code.chars();
    let mut is_text = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_text => drop(chars.next()),
            '"' => is_text = !is_text,
            _ if is_text => {}
            '\'' => {
                // A quotation mark as a character opens no text.
                let rest = chars.as_str();
                if let Some(length) =
                    ["\"'", "\\\"'"].iter().find(|text| rest.starts_with(**text)).map(|text| text.len())
                {
                    chars = rest[length..].chars();
                }
            }
            _ => kept.push(c),
        }
    }
    kept
}

/// A family is named in its own file and in the table; all other code asks its row.
#[test]
fn no_family_is_named_outside_its_row() {
    let all = sources();
    let is_row = |source: &&Source| source.room() == "family" && source.code.contains("static ROW: FamilyRow");
    let names: Vec<String> = all
        .iter()
        .filter(is_row)
        .filter_map(|source| Some(source.code.split("    name: \"").nth(1)?.split('"').next()?.to_owned()))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for source in all.iter().filter(|source| source.room() != "family") {
        let code = without_texts(&source.code).to_lowercase();
        for name in &names {
            let path = source.path.display();
            assert!(!source.code.contains(&format!("\"{name}\"")), "{path} has the name \"{name}\"");
            for word in [name.replace('-', "_"), name.replace('-', "")] {
                assert!(!code.contains(&word), "{path} names {word}");
            }
        }
    }
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if room == "lib" || room == "main" {
            continue;
        }
        let Some(floor) = floor_of(&room) else {
            wrong.push(format!(
                "{}: room `{room}` has no floor; give it one here and in ARCHITECTURE.md",
                source.path.display()
            ));
            continue;
        };
        for used in used_rooms(&source.code) {
            // What lib.rs re-exports is named without its room; those are the errors.
            let used = if used.starts_with(char::is_uppercase) { "error".to_owned() } else { used };
            if used == room {
                continue;
            }
            match floor_of(&used) {
                Some(below) if below < floor => {}
                Some(_) => {
                    wrong.push(format!("{}: `{room}` uses `{used}`, which is not below it", source.path.display()))
                }
                None => wrong.push(format!("{}: uses `crate::{used}`, which is no room", source.path.display())),
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn only_the_session_room_knows_the_runtime() {
    let knows = |code: &str| names(code, "ort::") || names(code, "use ort");
    let inside = sources().iter().any(|source| source.room() == "session" && knows(&source.code));
    assert!(inside, "the session room does use ort, or this test sees nothing");
    let outside = sources().into_iter().filter(|source| source.room() != "session" && knows(&source.code));
    assert_none(outside.map(|source| format!("{}: uses ort", source.path.display())).collect());
}

#[test]
fn only_the_command_line_speaks_and_reads_the_environment() {
    const WORDS: &[&str] = &[
        "println!",
        "print!",
        "eprintln!",
        "eprint!",
        "dbg!",
        "io::stdout",
        "io::stderr",
        "io::stdin",
        "process::exit",
        "std::env",
        "env::var",
        "env::args",
        "env::current_dir",
        "env::temp_dir",
        "env::home_dir",
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        let is_environment = source.path == Path::new("engine").join("environment.rs");
        if ["cli", "main"].contains(&source.room().as_str()) || is_environment {
            continue;
        }
        // The operating system and processor that the program was built for are no part of the environment.
        let code = source.code.replace("std::env::consts", "");
        let code = if source.path == Path::new(TELEMETRY_SWITCH) {
            code.replace("std::env::var_os(TELEMETRY_OFF)", "").replace("std::env::set_var(TELEMETRY_OFF, ", "")
        } else {
            code
        };
        let spoken = WORDS.iter().filter(|word| names(&code, word));
        wrong.extend(spoken.map(|word| format!("{}: {word}", source.path.display())));
    }
    assert_none(wrong);
}

/// Opening a FIFO waits and a device never ends, so files are opened where that is looked at first.
#[test]
fn inputs_are_opened_in_one_place() {
    const WORDS: &[&str] = &["File::open", "fs::read", "fs::read_to_string", "File::options"];
    /// Files of the system, folders that are synced, and files that were just written.
    const OTHERS: &[&str] =
        &["memory/linux.rs", "session/options.rs", "session/library/loaded_copies.rs", "session/fetch/download.rs"];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room() != "files") {
        let path = source.path.to_string_lossy().replace('\\', "/");
        let opened = WORDS.iter().filter(|word| names(&source.code, &format!("{word}(")));
        wrong.extend(opened.filter(|_| !OTHERS.contains(&path.as_str())).map(|word| format!("{path}: {word}")));
    }
    assert_none(wrong);
}

/// Parsers of other crates may panic on what they read, which is the file's fault and no reason to end the program.
#[test]
fn parsers_of_other_crates_are_contained() {
    const PARSERS: &[&str] = &[
        "SafeTensors::",
        "png::Decoder::new",
        "ImageReader::new",
        "ZipArchive::new",
        "DeTable::parse",
        "Message>::decode",
        "from_value::<Tokenizer>",
        "Decompress::builder",
    ];
    let all = sources();
    for parser in PARSERS {
        let mut users = all.iter().filter(|source| source.code.contains(parser)).peekable();
        assert!(users.peek().is_some(), "{parser} is used nowhere");
        let open =
            users.filter(|source| !source.code.contains("contain")).map(|s| format!("{}: {parser}", s.path.display()));
        // The archive is unpacked for `fetch`, which contains that.
        assert_none(open.filter(|user| !user.starts_with("session/fetch/unpack.rs")).collect());
    }
}

/// Noise and schedules are the same on every system, whose mathematics libraries differ.
#[test]
fn schedules_and_noise_use_no_function_of_the_system() {
    const NAMES: &[&str] = &[
        "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "powf", "sin", "cos", "sin_cos", "tan",
        "atan2", "tanh",
    ];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| ["scheduler", "rng"].contains(&source.room().as_str())) {
        let used = NAMES.iter().filter(|name| {
            [format!(".{name}("), format!("f64::{name}"), format!("f32::{name}")]
                .iter()
                .any(|word| names(&source.code, word))
        });
        wrong.extend(used.map(|name| format!("{}: {name}; use crate::elementary", source.path.display())));
    }
    assert_none(wrong);
}

/// One scheduler never leans on another, nor one task on another: each can be read, changed and removed alone.
#[test]
fn siblings_do_not_know_each_other() {
    let mut wrong = Vec::new();
    for (room, seam) in [("scheduler", "Scheduler for "), ("task", "Task for ")] {
        let all = sources();
        let siblings: Vec<&Source> =
            all.iter().filter(|source| source.room() == room && source.code.contains(seam)).collect();
        assert!(siblings.len() >= 2, "{room}: only {} siblings found", siblings.len());
        for one in &siblings {
            for other in siblings.iter().filter(|other| other.module() != one.module()) {
                let module = other.module();
                let paths = [format!("super::{module}"), format!("{room}::{module}")];
                if paths.iter().any(|path| names(&one.code, path)) {
                    wrong.push(format!("{}: uses its sibling {module}", one.path.display()));
                }
            }
        }
    }
    assert_none(wrong);
}

/// Nothing but a task's own file decides by the task's name. Others ask the task or its row.
#[test]
fn only_a_tasks_own_file_names_it() {
    /// Files that name tasks, with the number of mentions and the reason. A mention in a hint sends the user to another
    /// task.
    const OTHERS: &[(&str, usize, &str)] = &[
        ("engine/request.rs", 3, "builders of requests, which are tables of a pipeline file"),
        ("plan/requirements.rs", 6, "hints"),
        ("plan/scheduler.rs", 2, "hints"),
        ("plan/text.rs", 1, "hint"),
        ("spec/stage.rs", 1, "hint"),
        ("task/conditions.rs", 1, "hint"),
        ("task/contract.rs", 1, "hint"),
        ("task/prompt.rs", 1, "hint"),
    ];
    let all = sources();
    let row = |source: &Source| {
        let code = source.code.split_once("TaskEntry = TaskEntry {")?.1;
        Some(code.split_once("name: \"")?.1.split_once('"')?.0.to_owned())
    };
    let tasks: Vec<(PathBuf, String)> =
        all.iter().filter_map(|source| Some((source.path.clone(), row(source)?))).collect();
    assert!(tasks.len() >= 8 && tasks.iter().any(|(_, name)| name == "inpaint"), "{tasks:?}");
    let mut wrong = Vec::new();
    // A family's rows of diffusers' classes state the task that each class runs, which is data of the class.
    for source in all.iter().filter(|source| source.room() != "family") {
        let path = source.path.to_string_lossy().replace('\\', "/");
        let mentions = tasks.iter().filter(|(own, _)| *own != source.path).map(|(_, name)| {
            let forms = [format!("\"{name}\""), format!("task.{name}]"), format!("task.{name}.")];
            forms.iter().map(|form| source.code.matches(form.as_str()).count()).sum::<usize>()
        });
        let found: usize = mentions.sum();
        let allowed = OTHERS.iter().find(|(other, ..)| *other == path).map_or(0, |(_, count, _)| *count);
        if found != allowed {
            wrong.push(format!("{path}: names tasks {found} times, and {allowed} are known"));
        }
    }
    assert_none(wrong);
}
