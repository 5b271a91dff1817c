//! Remarks on prompts: what is probably not meant as it is read.

use super::TextPlan;
use crate::error::Result;
use crate::spec::Prompting;
use crate::text::foreign_syntax;

impl TextPlan {
    /// Returns remarks on syntax of other programs in prompts, and on embeddings that no prompt names.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](crate::text::tokenizer::Tokenizer::encode).
    pub(in crate::plan) fn remarks(&self, prompting: &Prompting) -> Result<Vec<String>> {
        let texts = keyed(prompting);
        let words: Vec<&str> = self.inversions.iter().map(|inversion| inversion.token.as_str()).collect();
        let Some(style) = self.encoders.first().map(|text| text.style) else { return Ok(Vec::new()) };
        let mut remarks = Vec::new();
        for (key, text) in &texts {
            for sentence in foreign_syntax(text, style.weighs, style.goes_on, &words) {
                let remark = format!("{key}: {sentence}");
                if !remarks.contains(&remark) {
                    remarks.push(remark);
                }
            }
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
                    "{path}: no prompt has its token \"{token}\", and the [[embedding]] changes nothing"
                ));
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
