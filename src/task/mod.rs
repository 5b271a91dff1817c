//! Tasks: what each needs, how it starts and how it finishes.
