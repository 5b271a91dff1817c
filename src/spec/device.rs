//! `[device]`: which execution providers run the graphs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::model::component_kinds;
use super::plain_options::is_plain_option;
use crate::bundle::ComponentKind;
use crate::byte_size;
use crate::keys::{Item, Table, Value, Writer, integer, unknown_name};
use crate::session::{PROVIDERS, find_provider};

/// The provider that takes every node.
const CPU: &str = "cpu";

/// A provider's own options, under the names ONNX Runtime gives them.
pub type Options = BTreeMap<String, String>;

/// `[device]`: which execution providers run the graphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// `provider = "cpu"`: an execution provider by a name or an alias of [`PROVIDERS`], here by its name, or a list in order
    /// of preference. Providers of a list that cannot be used on this machine are skipped with a warning, and so are their
    /// options; it is an error if none can be used. Nothing falls to the CPU unless the list ends in it.
    pub providers: Vec<String>,
    /// `provider_library`, a path or several: libraries of plugin providers, which are registered with ONNX Runtime. The lists
    /// of providers may then name those that the libraries offer, by ONNX Runtime's names.
    pub provider_libraries: Vec<PathBuf>,
    /// `threads`: of the CPU, 1 to 1024, at most as many as the CPUs that the process's affinity mask and its control groups'
    /// quota leave it, unless `overcommit` allows more. Absent: one for each physical core that the process may use.
    pub threads: Option<usize>,
    /// `batching`: the way in which the rows of one call of the denoiser are run. With operators of our own, `auto` is
    /// `batched`, and `split` is `sequential`: each run is divided among all threads.
    pub batching: Batching,
    /// `denoising_loop`: the memory that samples are in between two steps.
    pub denoising_loop: DenoisingLoop,
    /// `optimize = true`: graphs that run on the CPU alone are optimized once, into the graph cache. With `false` they are
    /// opened as exported.
    pub optimize: bool,
    /// `precision = "float32"`: the type in which denoisers, ControlNets and VAEs multiply on the CPU.
    pub precision: Precision,
    /// `fast_convolutions = false`: true computes the convolutions of denoisers that are optimized for ONNX Runtime's operators in
    /// Winograd's form F(4×4, 3×3), for which transformed weights are large. Operators of our own do so without it.
    pub fast_convolutions: bool,
    /// `exact = false`: true leaves Winograd's form out of all graphs on the CPU.
    pub exact: bool,
    /// `offload`: true unloads each graph once it has run for an image, so that the next has its memory; false keeps all of
    /// them loaded for the next image. Absent: they are unloaded if the machine has no room for all of them.
    pub offload: Option<bool>,
    /// `free_activations`: true frees the memory of each graph's activations after its last run for an image; false keeps it
    /// for the next image. Absent: it is freed on the CPU, and kept on other providers, where allocating it again is slow.
    pub free_activations: Option<bool>,
    /// `memory_budget`, such as `"3 GB"`: the most memory that the process may hold, in bytes, private and mapped. If
    /// needed, rows are run one after the other and images decoded in tiles; a run that still does not fit fails and
    /// reports the memory it would need. On the CPU only, for optimized graphs.
    pub memory_budget: Option<u64>,
    /// `overcommit = false`: true starts a run also if it needs more memory than the machine has free, and with more threads
    /// than the process may use CPUs.
    pub overcommit: bool,
    /// `verify`: true compares each graph with ONNX Runtime's own operators on the CPU before it is first used, and stops if
    /// it is wrong; the graph cache remembers the comparison for the graph, its providers and their options, and the version
    /// of ONNX Runtime. Absent: on for graphs on providers other than the CPU.
    pub verify: Option<bool>,
    /// `[device.COMPONENT]` with `provider`: components that run elsewhere.
    pub components: BTreeMap<ComponentKind, Vec<String>>,
    /// `[device.PROVIDER]`: the own options of a provider that a list names, under the names ONNX Runtime gives them.
    /// Strings, numbers and booleans are handed to it as they are written.
    pub options: BTreeMap<String, Options>,
}

/// The way in which the rows of one call of the denoiser are run: images, times the branches of the guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Batching {
    /// `auto`: on a CPU the way that was measured to be the fastest for an optimized denoiser, and split where nothing is
    /// measured; batched elsewhere. One run of all rows is measured where there are more threads than rows, and not where
    /// calls have fewer rows at times, the memory is bounded, or the graph has a fixed batch.
    #[default]
    Auto,
    /// `batched`: all rows in one run of the graph.
    Batched,
    /// `split`: each row a run by itself, two of them at the same time. On a CPU only.
    Split,
    /// `sequential`: each row a run by itself, one after the other, which takes the least memory.
    Sequential,
}

impl Batching {
    const NAMES: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("batched", Self::Batched), ("split", Self::Split), ("sequential", Self::Sequential)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, batching)| *batching == self).map_or("auto", |(name, _)| name)
    }
}

/// The memory that samples are in between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DenoisingLoop {
    /// `auto`: on the device of the denoiser's provider if it has memory of its own and the run allows it, else in the host's
    /// memory.
    #[default]
    Auto,
    /// `host`: in the host's memory, where each prediction is copied to and each step is computed.
    Host,
    /// `device`: on the device; an error if the run does not allow it.
    Device,
}

impl DenoisingLoop {
    const NAMES: [(&'static str, Self); 3] = [("auto", Self::Auto), ("host", Self::Host), ("device", Self::Device)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, place)| *place == self).map_or("auto", |(name, _)| name)
    }
}

/// The type in which denoisers, ControlNets and VAEs multiply on the CPU. Sums are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// `float32`
    #[default]
    Float32,
    /// `bf16`, also called `bfloat16`: on CPUs that multiply it (AVX-512 BF16 or AMX), an error on others.
    Bf16,
    /// `int8`: the linear layers of denoisers and ControlNets on CPUs with AVX-512 VNNI, an error on others; all other
    /// products as with `auto`.
    Int8,
    /// `auto`: bf16 on CPUs on which it is faster (with AMX, and AMD's with AVX-512 BF16), float32 on others.
    Auto,
}

impl Precision {
    const NAMES: [(&'static str, Self); 5] = [
        ("float32", Self::Float32),
        ("bf16", Self::Bf16),
        ("bfloat16", Self::Bf16),
        ("int8", Self::Int8),
        ("auto", Self::Auto),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, precision)| *precision == self).map_or("float32", |(name, _)| name)
    }
}

impl Default for DeviceSpec {
    fn default() -> Self {
        Self {
            providers: vec![CPU.into()],
            provider_libraries: Vec::new(),
            threads: None,
            batching: Batching::default(),
            denoising_loop: DenoisingLoop::default(),
            optimize: true,
            precision: Precision::default(),
            fast_convolutions: false,
            exact: false,
            offload: None,
            free_activations: None,
            memory_budget: None,
            overcommit: false,
            verify: None,
            components: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

impl DeviceSpec {
    /// The providers a component runs on, in order of preference.
    pub fn providers_of(&self, component: ComponentKind) -> &[String] {
        self.components.get(&component).unwrap_or(&self.providers)
    }

    /// True if a component runs on the CPU alone.
    pub fn is_on_cpu(&self, component: ComponentKind) -> bool {
        self.providers_of(component).iter().all(|name| name == CPU)
    }

    /// True if any component may run on the provider of this name.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.providers.iter().chain(self.components.values().flatten()).any(|used| used == name)
    }

    /// The names in the lists that are not those of [`PROVIDERS`], each once.
    fn plugin_names(&self) -> BTreeSet<String> {
        let all = self.providers.iter().chain(self.components.values().flatten());
        all.filter(|name| find_provider(name).is_err()).cloned().collect()
    }

    pub(super) fn read(mut table: Table<'_>) -> Self {
        let mut device = Self::default();
        let has_plugins = table.has(&["provider_library"]);
        if let Some(providers) = providers(&mut table, has_plugins) {
            device.providers = providers;
        }
        device.provider_libraries = table.file_paths("provider_library").unwrap_or_default();
        device.threads = table.integer("threads", 1, 1024);
        let ways = Batching::NAMES.map(|(name, _)| name);
        if let Some(name) = table.choice("batching", "way to run the rows", &ways) {
            let way = Batching::NAMES.iter().find(|(known, _)| *known == name);
            device.batching = way.map_or(Batching::Auto, |(_, batching)| *batching);
        }
        let places = DenoisingLoop::NAMES.map(|(name, _)| name);
        if let Some(name) = table.choice("denoising_loop", "place of the denoising loop", &places) {
            let place = DenoisingLoop::NAMES.iter().find(|(known, _)| *known == name);
            device.denoising_loop = place.map_or(DenoisingLoop::Auto, |(_, place)| *place);
        }
        let precisions = Precision::NAMES.map(|(name, _)| name);
        if let Some(name) = table.choice("precision", "precision", &precisions) {
            let chosen = Precision::NAMES.iter().find(|(known, _)| *known == name);
            device.precision = chosen.map_or(Precision::Float32, |(_, precision)| *precision);
        }
        let mut switch = |key: &str| table.get(key).and_then(|item| item.switch());
        (device.optimize, device.offload) = (switch("optimize").unwrap_or(true), switch("offload"));
        device.fast_convolutions = switch("fast_convolutions").unwrap_or(false);
        device.exact = switch("exact").unwrap_or(false);
        device.overcommit = switch("overcommit").unwrap_or(false);
        device.verify = switch("verify");
        device.free_activations = switch("free_activations");
        device.memory_budget = memory_budget(&mut table);
        device.report_contradictions(&mut table);
        device.components = components(&mut table, has_plugins);
        let named_by_flag = table.get("provider").is_some_and(|item| item.origin().is_command_line());
        for name in names().map(str::to_owned).chain(device.plugin_names()) {
            if table.get(&name).is_none() {
                continue;
            }
            let is_used = device.uses(&name);
            let options = options(table.table(&name), &name, is_used);
            if is_used {
                device.options.insert(name, options);
            } else if !named_by_flag {
                // Where a flag chooses another provider, the file's options are those of the one it passed over.
                table.report_at(&name, format!("no list of providers names `{name}`, whose options these are; put it into provider, or leave the table out"));
            }
        }
        table.finish();
        device
    }

    /// Reports keys that exclude each other.
    fn report_contradictions(&self, table: &mut Table<'_>) {
        let rules = [
            (
                self.precision == Precision::Bf16 && !self.optimize,
                ("precision", "bf16 is made when graphs are optimized, and `optimize` is false"),
            ),
            (
                self.precision == Precision::Int8 && !self.optimize,
                ("precision", "int8 is made when graphs are optimized, and `optimize` is false"),
            ),
            (
                self.fast_convolutions && !self.optimize,
                ("fast_convolutions", "is done when graphs are optimized, and `optimize` is false"),
            ),
            (
                self.exact && self.precision != Precision::Float32,
                ("exact", "is for float32, and `precision` allows less; leave one out"),
            ),
            (
                self.exact && self.fast_convolutions,
                ("exact", "leaves Winograd's form out, and `fast_convolutions` asks for it; leave one out"),
            ),
            (
                self.memory_budget.is_some() && self.offload == Some(false),
                ("offload", "keeps all graphs loaded, and `memory_budget` unloads each once it has run; leave one out"),
            ),
        ];
        for (key, problem) in rules.into_iter().filter_map(|(applies, report)| applies.then_some(report)) {
            table.report_at(key, problem);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["device"]);
        writer.strings("provider", &self.providers);
        writer.paths("provider_library", &self.provider_libraries);
        writer.key_if("threads", self.threads.map(integer));
        writer.key_if("batching", (self.batching != Batching::Auto).then(|| self.batching.name()));
        let place = (self.denoising_loop != DenoisingLoop::Auto).then(|| self.denoising_loop.name());
        writer.key_if("denoising_loop", place);
        writer.key_if("optimize", (!self.optimize).then_some(false));
        let precision = (self.precision != Precision::default()).then(|| self.precision.name());
        writer.key_if("precision", precision);
        writer.key_if("fast_convolutions", self.fast_convolutions.then_some(true));
        writer.key_if("exact", self.exact.then_some(true));
        writer.key_if("offload", self.offload);
        writer.key_if("free_activations", self.free_activations);
        writer.key_if("memory_budget", self.memory_budget.map(byte_size::write));
        writer.key_if("overcommit", self.overcommit.then_some(true));
        writer.key_if("verify", self.verify);
        for (kind, providers) in &self.components {
            writer.table(&["device", kind.name()]);
            writer.strings("provider", providers);
        }
        for (name, options) in &self.options {
            writer.table(&["device", name]);
            let portable = writer.is_portable();
            for (key, value) in options.iter().filter(|(key, value)| !portable || is_plain_option(key, value)) {
                writer.key(key, value.clone());
            }
        }
    }
}

/// Reads `[device.COMPONENT]`.
fn components(table: &mut Table<'_>, has_plugins: bool) -> BTreeMap<ComponentKind, Vec<String>> {
    let mut components = BTreeMap::new();
    for kind in component_kinds() {
        if table.get(kind.name()).is_none() {
            continue;
        }
        let mut component = table.table(kind.name());
        component.require("provider", "an execution provider or an array of them");
        if let Some(providers) = providers(&mut component, has_plugins) {
            components.insert(kind, providers);
        }
        component.finish();
    }
    components
}

fn names() -> impl Iterator<Item = &'static str> + Clone {
    PROVIDERS.iter().map(|provider| provider.name)
}

fn memory_budget(table: &mut Table<'_>) -> Option<u64> {
    let item = table.get("memory_budget")?;
    let written = item.string("an amount of memory")?;
    let bytes = byte_size::parse(&written);
    if bytes.is_none() {
        item.report(format!("expected an amount of memory such as \"3 GB\" or \"2.5 GiB\", found {written:?}"));
    }
    bytes
}

/// Reads a list of providers, with the names of plugins if there are libraries of them.
fn providers(table: &mut Table<'_>, has_plugins: bool) -> Option<Vec<String>> {
    let items = table.strings("provider")?;
    let mut providers = Vec::new();
    for item in items {
        let written = item.string("the name of a provider")?;
        let name = match find_provider(&written) {
            Ok(provider) => provider.name.to_owned(),
            Err(_) if has_plugins && !written.is_empty() && !written.contains('\0') => written,
            Err(_) => {
                let aliases = PROVIDERS.iter().flat_map(|provider| provider.aliases.iter().copied());
                let problem = unknown_name("provider", &written, names(), aliases);
                item.report(format!("{problem}; a plugin provider needs its library, in provider_library"));
                continue;
            }
        };
        if providers.contains(&name) {
            item.report(format!("`{name}` stands in the list twice"));
        } else if providers.last().is_some_and(|before| before == CPU) {
            item.report(format!(
                "`cpu` comes before `{name}` and takes every node; put cpu last, or leave `{name}` out"
            ));
        }
        providers.push(name);
    }
    Some(providers)
}

/// Reads the options of a provider. Those that it would ignore are refused if it is used.
fn options(table: Table<'_>, provider: &str, is_used: bool) -> Options {
    let row = find_provider(provider).ok().filter(|_| is_used);
    let mut options = Options::new();
    for (name, item) in table.any_keys() {
        if is_used && provider == CPU {
            item.report("the CPU takes no options of its own; `threads` and what else there is stands in [device]");
        } else if name.contains('\0') || matches!(item.value(), Value::String(text) if text.contains('\0')) {
            item.report("expected text without a NUL character, which ends it for ONNX Runtime");
        } else if let Some(row) = row.filter(|row| row.ignores(name)) {
            item.report(unknown_name("option", name, row.options.iter().copied(), std::iter::empty()));
        } else if let Some(value) = option(&item) {
            if item.is_untrusted() && !is_plain_option(name, &value) {
                let key = item.key();
                item.report(format!("is not among the options that a record may set, which open no file or library; if you want it: --set {key}=VALUE"));
            }
            options.insert(name.to_owned(), value);
        }
    }
    options
}

fn option(item: &Item<'_>) -> Option<String> {
    match item.value() {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(x) => Some(x.to_string()),
        Value::Boolean(b) => Some(b.to_string()),
        other => {
            item.report(format!("expected a string, a number or a boolean, found {}", other.describe()));
            None
        }
    }
}
