//! First stages: latents to pixels and back.
