//! The reading of prompts: weights, length, cleaning, layers.

use super::prompt_texts::texts;
use crate::keys::{Table, Writer, integer};
use crate::text::tokenizer::Cleaning;

/// The way in which a model's text encoders read prompts. The defaults are those of diffusers' pipelines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptReading {
    /// `prompt_weighting = "none"`: the syntax that weights words of a prompt.
    pub weights: PromptWeighting,
    /// `long_prompts = "truncate"`: the treatment of a prompt that is longer than the text encoder reads.
    pub long_prompts: LongPrompts,
    /// `text_cleaning = "fast"`: how CLIP's tokenizer cleans a prompt. Absent: `"fast"`, with a warning where the others
    /// would give other tokens.
    ///
    /// - `"fast"`: as transformers' `CLIPTokenizerFast`.
    /// - `"basic"`: as `CLIPTokenizer` of transformers 4, which diffusers loads if `model_index.json` names it, without
    ///   the package ftfy. Each Chinese character is a word, and control characters are left out.
    /// - `"ftfy"`: the same with ftfy 6. Typographic quotes, ligatures, full-width forms and HTML entities become plain
    ///   text. A prompt that ftfy may take for text in a wrong encoding is refused.
    pub text_cleaning: Option<Cleaning>,
    /// `clip_skip`: how many of the text encoder's last layers are left out, 1 or more. Stable Diffusion 1 and 2 then
    /// attend to the states after an earlier layer, with the encoder's last norm over them; Stable Diffusion XL, which
    /// leaves one out by itself, leaves out so many more. The negative prompt is read with all layers. Absent: what the
    /// model was trained on. All of this is as diffusers' argument of that name has it; AUTOMATIC1111's "Clip skip" is
    /// greater by one, and goes for the negative prompt too.
    pub clip_skip: Option<usize>,
    /// `max_sequence_length`: how many tokens T5 or Gemma reads, 2 to 512, in a model that has it; CLIP's number is its own.
    /// Absent: the default of the task's pipeline class in diffusers: 256 for Stable Diffusion 3, 512 for Flux, 120 for
    /// PixArt-α, 300 for PixArt-Σ and for Sana, beside its instruction.
    pub max_sequence_length: Option<usize>,
    /// `complex_human_instruction`: the text before every prompt but a negative one, a string or a list of lines; the string
    /// `""` for none. For models of Sana only, which read it with `max_sequence_length` tokens of the prompt behind it.
    /// Absent: the default of the task's pipeline class in diffusers.
    pub complex_human_instruction: Option<String>,
}

/// `prompt_weighting`: the syntax that weights words of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptWeighting {
    /// `"none"`: they are part of the text.
    #[default]
    None,
    /// `"a1111"`: as AUTOMATIC1111's web UI reads them. `(a)` weighs 1.1, `((a))` 1.21, `(a:1.3)` 1.3 and `[a]` 1/1.1;
    /// `\(` is a bracket that is part of the text. A bracket that is never closed reaches to the end of the prompt, one
    /// that was never opened is text.
    A1111,
}

/// `long_prompts`: the treatment of a prompt that is longer than the text encoder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongPrompts {
    /// `"truncate"`: the rest is left out, with a warning.
    #[default]
    Cut,
    /// `"chunk"`: it is read in pieces of the length that the text encoder reads (75 tokens and the two around them for
    /// CLIP), whose states follow each other; a piece ends at a comma where there is one among its last 20 tokens, and
    /// at the word `BREAK`. Prompt and negative prompt get equally many pieces, the shorter one empty ones.
    Chunk,
}

impl PromptReading {
    pub(super) const KEYS: &'static [&'static str] =
        &["prompt_weighting", "long_prompts", "text_cleaning", "clip_skip", "max_sequence_length", Self::INSTRUCTION];

    const INSTRUCTION: &'static str = "complex_human_instruction";

    const CLEANINGS: [(&str, Cleaning); 3] =
        [("fast", Cleaning::Fast), ("basic", Cleaning::Basic), ("ftfy", Cleaning::Ftfy)];

    /// No text encoder has as many layers.
    const MOST_LAYERS: usize = 255;

    /// T5 was trained on no longer texts.
    const MOST_TOKENS: usize = 512;

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            weights: match table.choice("prompt_weighting", "syntax of weights", &["none", "a1111"]) {
                Some("a1111") => PromptWeighting::A1111,
                _ => PromptWeighting::None,
            },
            long_prompts: match table.choice("long_prompts", "way to read long prompts", &["truncate", "chunk"]) {
                Some("chunk") => LongPrompts::Chunk,
                _ => LongPrompts::Cut,
            },
            text_cleaning: {
                let chosen = table.choice("text_cleaning", "way to clean text", &Self::CLEANINGS.map(|(name, _)| name));
                chosen.and_then(|chosen| Self::CLEANINGS.iter().find(|(name, _)| *name == chosen)).map(|(_, way)| *way)
            },
            clip_skip: table.integer("clip_skip", 1, Self::MOST_LAYERS),
            max_sequence_length: table.integer("max_sequence_length", 2, Self::MOST_TOKENS),
            complex_human_instruction: texts(table, Self::INSTRUCTION).map(|lines| lines.join("\n")),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let weights = (self.weights == PromptWeighting::A1111).then_some("a1111");
        let long_prompts = (self.long_prompts == LongPrompts::Chunk).then_some("chunk");
        writer.key_if("prompt_weighting", weights);
        writer.key_if("long_prompts", long_prompts);
        let cleaning = Self::CLEANINGS.iter().find(|(_, way)| Some(*way) == self.text_cleaning);
        writer.key_if("text_cleaning", cleaning.map(|(name, _)| *name));
        writer.key_if("clip_skip", self.clip_skip.map(integer));
        writer.key_if("max_sequence_length", self.max_sequence_length.map(integer));
        writer.key_if(Self::INSTRUCTION, self.complex_human_instruction.clone());
    }
}
