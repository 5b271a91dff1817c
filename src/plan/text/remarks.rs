//! Remarks on prompts: what is probably not meant as it is read.

use super::TextPlan;
use crate::error::Result;
use crate::task::Prompting;
use crate::text::foreign_syntax;
use crate::text::tokenizer::{Cleaning, Tokenizer};

impl TextPlan {
    /// Returns remarks on syntax of other programs in prompts, on texts that other ways of cleaning would read otherwise,
    /// and on embeddings that no prompt names.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](crate::text::tokenizer::Tokenizer::encode).
    pub(in crate::plan) fn remarks(&self, prompting: &Prompting) -> Result<Vec<String>> {
        let texts = keyed(prompting);
        let words: Vec<&str> = self.inversions.iter().map(|inversion| inversion.token.as_str()).collect();
        let Some(style) = self.encoders.first().map(|text| text.style) else { return Ok(Vec::new()) };
        let mut remarks = Vec::new();
        for (key, text) in &texts {
            for sentence in foreign_syntax(text, style.has_weights, style.is_chunked, &words) {
                let remark = format!("{key}: {sentence}");
                if !remarks.contains(&remark) {
                    remarks.push(remark);
                }
            }
        }
        if prompting.reading.text_cleaning.is_none() {
            remarks.extend(self.cleaned_otherwise(&texts)?);
        }
        for inversion in &self.inversions {
            let mut is_used = false;
            for (_, text) in &texts {
                for encoder in &self.encoders {
                    is_used = is_used || encoder.tokenizer.finds_word(text, &inversion.token)?;
                }
            }
            if !is_used {
                let (path, token) = (inversion.path.display(), &inversion.token);
                remarks.push(format!(
                    "{path}: no prompt has its token \"{token}\", and the [[textual_inversion]] changes nothing"
                ));
            }
        }
        Ok(remarks)
    }
}

impl TextPlan {
    /// Remarks on texts of which transformers' slow tokenizer gives other tokens.
    fn cleaned_otherwise(&self, texts: &[(&'static str, &str)]) -> Result<Vec<String>> {
        const WAYS: [(Cleaning, &str); 2] = [(Cleaning::Basic, "without ftfy"), (Cleaning::Ftfy, "with ftfy")];
        // Of such a text every way makes the same, but for embeddings, whose tokens may be found in another case.
        let is_plain =
            |text: &str| text.bytes().all(|b| b"\t\n\r".contains(&b) || matches!(b, b' '..=b'~') && b != b'&');
        let suspects: Vec<_> =
            texts.iter().filter(|(_, text)| !self.inversions.is_empty() || !is_plain(text)).collect();
        let clip = self.encoders.iter().map(|text| &text.tokenizer).find(|tokenizer| tokenizer.cleaning().is_some());
        let Some(fast) = clip.filter(|_| !suspects.is_empty()) else { return Ok(Vec::new()) };
        let others = WAYS.map(|(way, name)| Ok((Tokenizer::clone(fast).with_cleaning(way)?, name)));
        let others = others.into_iter().collect::<Result<Vec<_>>>()?;
        let mut remarks = Vec::new();
        for (key, text) in suspects {
            let tokens = fast.tokens(text)?;
            // What ftfy would have to repair is read otherwise, too.
            let differs = |other: &Tokenizer| !other.tokens(text).is_ok_and(|other| other == tokens);
            let ways: Vec<&str> = others.iter().filter(|(other, _)| differs(other)).map(|(_, name)| *name).collect();
            let remark = format!(
                "{key}: CLIPTokenizer of transformers 4 ({}) gives other tokens than CLIPTokenizerFast, which is followed; \
                 set text_cleaning to \"basic\" (without ftfy), \"ftfy\" or \"fast\"",
                ways.join(", and ")
            );
            if !ways.is_empty() && !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
        Ok(remarks)
    }
}

/// All texts of a task, each under its key.
fn keyed(prompting: &Prompting) -> Vec<(&'static str, &str)> {
    let [second, third] = &prompting.later;
    let all = [
        ("prompt", &prompting.prompts),
        ("negative_prompt", &prompting.negative_prompts),
        ("prompt_2", &second.prompts),
        ("negative_prompt_2", &second.negative_prompts),
        ("prompt_3", &third.prompts),
        ("negative_prompt_3", &third.negative_prompts),
    ];
    all.into_iter().flat_map(|(key, texts)| texts.iter().map(move |text| (key, text.as_str()))).collect()
}
