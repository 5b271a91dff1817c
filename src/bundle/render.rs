//! Formats a [`Report`] as text.

use std::fmt::{Display, Formatter, Result};

use super::report::{ComponentReport, Report, SchedulerReport, TensorReport};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "{}", self.directory)?;
        writeln!(f, "  layout    {}", self.layout)?;
        if let Some(class) = &self.class {
            writeln!(f, "  class     {class}")?;
        }
        writeln!(f, "  exporter  {}", self.exporter)?;
        let can: Vec<&str> = self.tasks.iter().filter(|t| t.possible).map(|t| t.task).collect();
        writeln!(f, "  tasks     {}", if can.is_empty() { "none".to_owned() } else { can.join(", ") })?;
        list(f, "faults", &self.faults)?;
        list(f, "missing", &self.missing)?;
        for component in &self.components {
            write_component(f, component)?;
        }
        for (title, scheduler) in [("scheduler", &self.scheduler), ("low_res_scheduler", &self.low_res_scheduler)] {
            if let Some(scheduler) = scheduler {
                write_scheduler(f, title, scheduler)?;
            }
        }
        if !self.tokenizers.is_empty() {
            writeln!(f, "\ntokenizers  {}", self.tokenizers.join(", "))?;
        }
        writeln!(f, "\nfacts")?;
        let width = self.facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
        let values = self.facts.iter().map(|fact| fact.value.chars().count()).max().unwrap_or(0).min(24);
        for fact in &self.facts {
            writeln!(f, "{}", format!("  {:width$}  {:values$}  {}", fact.name, fact.value, fact.source).trim_end())?;
        }
        writeln!(f, "\nproviders")?;
        if self.providers.is_empty() {
            writeln!(f, "  all operators are supported by all of them")?;
        }
        for p in &self.providers {
            let who = if p.runs_on.is_empty() { "none".to_owned() } else { p.runs_on.join(", ") };
            writeln!(f, "  {}: {} × {}: {}; runs on: {who}", p.component, p.count, p.operator, p.reason)?;
        }
        writeln!(f, "\nunsupported tasks")?;
        for task in self.tasks.iter().filter(|t| !t.possible) {
            writeln!(f, "  {:17}  {}", task.task, task.reason)?;
        }
        Ok(())
    }
}

fn list(f: &mut Formatter<'_>, title: &str, items: &[String]) -> Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    for item in items {
        writeln!(f, "  {}", item.replace('\n', "\n  "))?;
    }
    Ok(())
}

fn write_component(f: &mut Formatter<'_>, c: &ComponentReport) -> Result {
    writeln!(f, "\n{}  {}", c.name, c.file)?;
    let weights: Vec<String> = c.weight_types.iter().take(3).map(|(t, n)| format!("{t} {}", bytes(*n))).collect();
    let opsets: Vec<String> = c.opsets.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let nodes: Vec<String> = c.nodes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    writeln!(f, "  weights {} ({}); nodes {}", bytes(c.weight_bytes), weights.join(", "), nodes.join(", "))?;
    let producer = if c.producer.is_empty() { "unknown" } else { &c.producer };
    let class = c.class.as_ref().map(|class| format!("; class {class}")).unwrap_or_default();
    writeln!(f, "  opsets {}; format {}; written by {producer}{class}", opsets.join(", "), c.ir_version)?;
    for (location, size) in &c.external {
        writeln!(f, "  weights in {location}, {}", bytes(*size))?;
    }
    for note in &c.notes {
        writeln!(f, "  {note}")?;
    }
    let tensors = || c.inputs.iter().chain(&c.outputs);
    let longest = |text: fn(&TensorReport) -> usize| tensors().map(text).max().unwrap_or(0);
    let (names, dtypes) = (longest(|t| t.name.chars().count()), longest(|t| t.dtype.chars().count()));
    let shapes = longest(|t| t.shape.join(", ").chars().count() + 2);
    for (way, group) in [("in ", &c.inputs), ("out", &c.outputs)] {
        for t in group {
            let shape = format!("[{}]", t.shape.join(", "));
            let role = if t.role.is_empty() { "(not used)" } else { &t.role };
            writeln!(f, "  {way}  {:names$}  {:dtypes$}  {shape:shapes$}  {role}", t.name, t.dtype)?;
        }
    }
    Ok(())
}

fn write_scheduler(f: &mut Formatter<'_>, title: &str, scheduler: &SchedulerReport) -> Result {
    writeln!(f, "\n{title}  {}", scheduler.file)?;
    writeln!(f, "  class {}", scheduler.class.as_deref().unwrap_or("not named"))?;
    for (key, value) in &scheduler.config {
        writeln!(f, "  {key} = {value}")?;
    }
    Ok(())
}

/// Formats a size in a suitable unit.
fn bytes(n: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match UNITS.iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} bytes"),
    }
}
