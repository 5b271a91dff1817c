//! Mistakes in the pipeline file and in the flags that stand for its keys.

use super::Row;

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("an unknown key, near a known one").change("steps = 2", "step = 2").says(&[
            "pipeline.toml:8",
            "run.step",
            "unknown key",
            "did you mean `steps`",
        ]),
        Row::new("a key of another table").add("steps = 3\n").says(&[
            "pipeline.toml:15",
            "output.steps",
            "run.steps",
            "dir",
        ]),
        Row::new("an unknown table").add("[sampler]\nname = 'ddim'\n").says(&[
            "pipeline.toml:15",
            "unknown table `sampler`",
            "scheduler",
        ]),
        Row::new("a wrong type").change("steps = 2", "steps = 'two'").says(&[
            "pipeline.toml:8",
            "run.steps",
            "integer",
            "string",
        ]),
        Row::new("a list where a number is wanted").change("width = 64", "width = [64]").says(&[
            "pipeline.toml:10",
            "run.width",
            "integer",
            "array",
        ]),
        Row::new("no steps").change("steps = 2", "steps = 0").says(&["pipeline.toml:8", "run.steps", "1", "found 0"]),
        Row::new("a width below zero").change("width = 64", "width = -1").says(&[
            "pipeline.toml:10",
            "run.width",
            "found -1",
        ]),
        Row::new("more strength than there is").image_to_image().change("strength = 0.8", "strength = 1.5").says(&[
            "pipeline.toml:7",
            "task.image-to-image.strength",
            "1",
            "found 1.5",
        ]),
        Row::new("a number that is none")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nguidance_scale = nan")
            .says(&["pipeline.toml:6", "task.text-to-image.guidance_scale", "found NaN"]),
        Row::new("no prompt in an empty list")
            .change("prompt = 'a red circle'", "prompt = []")
            .says(&["pipeline.toml:5", "task.text-to-image.prompt"]),
        Row::new("as many negative prompts as it likes")
            .change("prompt = 'a red circle'", "prompt = ['a', 'b']\nnegative_prompt = ['c', 'd', 'e']")
            .says(&["pipeline.toml:6", "negative_prompt", "3", "2"]),
        Row::new("two caches").add("[cache.easycache]\n[cache.spectrum]\n").says(&[
            "pipeline.toml:16",
            "cache.spectrum",
            "a second cache, beside `easycache` on line 15; keep one",
        ]),
        Row::new("a caching method that nobody knows").add("[cache.teacache]\n").says(&[
            "pipeline.toml:15",
            "cache.teacache",
            "unknown cache \"teacache\"",
            "easycache, ucache, spectrum, deepcache",
        ]),
        Row::new("a cache's key of another method").add("[cache.easycache]\ndecay = 0.5\n").says(&[
            "pipeline.toml:16",
            "cache.easycache.decay",
            "unknown key",
            "threshold, start, end",
        ]),
        Row::new("a threshold below zero").add("[cache.ucache]\nthreshold = -1\n").says(&[
            "pipeline.toml:16",
            "cache.ucache.threshold",
            "from 0 to 1000",
            "found -1",
        ]),
        Row::new("a cache that ends before it starts").add("[cache.ucache]\nstart = 0.5\nend = 0.5\n").says(&[
            "pipeline.toml:17",
            "cache.ucache.end",
            "more than start = 0.5",
        ]),
        Row::new("a switch that is a number").over(&["--set", "cache.ucache.reset=1"]).says(&[
            "--set cache.ucache.reset",
            "true or false",
            "integer",
        ]),
        Row::new("an interval the wrong way round")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nguidance_interval = [0.8, 0.2]")
            .says(&["pipeline.toml:6", "task.text-to-image.guidance_interval", "[from, to]", "found [0.8, 0.2]"]),
        Row::new("an interval of one end")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nguidance_interval = [0.2]")
            .says(&["pipeline.toml:6", "task.text-to-image.guidance_interval", "two shares of the run", "found [0.2]"]),
        Row::new("an interval beyond the run")
            .over(&["--set", "task.text-to-image.guidance_interval=[0.2, 1.5]"])
            .says(&["--set task.text-to-image.guidance_interval", "from 0 to 1", "found [0.2, 1.5]"]),
        Row::new("an interval of words")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nguidance_interval = 'middle'")
            .says(&["pipeline.toml:6", "task.text-to-image.guidance_interval", "string"]),
        Row::new("nothing to compare").flags(&["--compare"]).says(&[
            "--compare",
            "nothing to compare",
            "[cache.easycache]",
        ]),
        Row::new("a key that is missing").image_to_image().change("image = 'in.png'\n", "").says(&[
            "pipeline.toml:4",
            "task.image-to-image.image",
            "missing",
        ]),
        Row::new("no model").change("[model]\npath = 'MODEL'\n", "").says(&["pipeline.toml", "model.path", "missing"]),
        Row::new("an empty path").change("'MODEL'", "''").says(&["pipeline.toml:2", "model.path", "empty"]),
        Row::new("no file at all").command(&["run", "pipelin.toml"]).says(&[
            "pipelin.toml",
            "cannot be read",
            "hint: name a pipeline file",
            "ldm-ort init MODEL_DIR",
        ]),
        Row::new("an empty file").files(|f| f.write("empty.toml", "")).command(&["run", "empty.toml"]).says(&[
            "empty.toml: model.path: missing",
            "task: missing",
            "hint: `ldm-ort init MODEL_DIR`",
        ]),
        Row::new("a value without a key")
            .over(&["--set", "steps"])
            .says(&["--set: expected table.key=value", "hint: `ldm-ort list keys`"]),
        Row::new("no directory at all")
            .command(&["inspect", "modle"])
            .says(&["modle: no such directory", "hint: check the path"]),
        Row::new("no file at all, checked")
            .command(&["check", "pipelin.toml"])
            .says(&["pipelin.toml", "cannot be read"]),
        Row::new("a folder for a file").command(&["run", "."]).says(&["directory", "pipeline.toml"]),
        Row::new("an image for a file")
            .files(|f| f.image("in.png", 8, 8))
            .command(&["run", "in.png"])
            .says(&["in.png", "--from"]),
        Row::new("not TOML").change("steps = 2", "steps = = 2").says(&["pipeline.toml:8"]),
        Row::new("a key twice").change("steps = 2", "steps = 2\nsteps = 3").says(&["pipeline.toml:9", "steps"]),
        Row::new("a bare word").change("steps = 2", "steps = two").says(&["pipeline.toml:8"]),
        Row::new("no task").change("[task.text-to-image]\nprompt = 'a red circle'\n", "").says(&[
            "pipeline.toml",
            "task",
            "text-to-image",
            "image-to-image",
        ]),
        Row::new("two tasks").add("[task.image-to-image]\nprompt = 'a'\nimage = 'in.png'\n").says(&[
            "pipeline.toml:15",
            "task.image-to-image",
            "text-to-image",
            "one",
        ]),
        Row::new("an unknown task").change("text-to-image", "text-to-imge").says(&[
            "pipeline.toml:4",
            "text-to-imge",
            "did you mean `text-to-image`",
        ]),
        Row::new("a task under its old name").change("text-to-image", "txt2img").says(&[
            "pipeline.toml:4",
            "unknown task \"txt2img\"",
            "text-to-image",
        ]),
        Row::new("an unknown scheduler").add("[scheduler.eular]\n").says(&[
            "pipeline.toml:15",
            "unknown scheduler \"eular\"",
            "did you mean `euler`",
        ]),
        Row::new("two schedulers").add("[scheduler.euler]\n[scheduler.ddim]\n").says(&[
            "pipeline.toml:16",
            "one",
            "euler",
        ]),
        Row::new("a key the scheduler does not take").add("[scheduler.euler]\nuse_karras = true\n").says(&[
            "pipeline.toml:16",
            "scheduler.euler.use_karras",
            "did you mean `use_karras_sigmas`",
        ]),
        Row::new("a value the scheduler does not take").add("[scheduler.euler]\ntimestep_spacing = 'even'\n").says(&[
            "timestep_spacing",
            "even",
            "linspace",
            "leading",
            "trailing",
        ]),
        Row::new("a type the scheduler does not take").add("[scheduler.ddim]\nclip_sample = 'no'\n").says(&[
            "ddim",
            "clip_sample",
            "no",
        ]),
        Row::new("an unknown provider").add("[device]\nprovider = 'cudda'\n").says(&[
            "pipeline.toml:16",
            "device.provider",
            "cudda",
            "did you mean `cuda`",
        ]),
        Row::new("a component that does not exist").add("[model.unett]\ngraph = 'model.onnx'\n").says(&[
            "pipeline.toml:15",
            "model.unett",
            "unet",
        ]),
        Row::new("a flag out of range").over(&["--steps", "0"]).says(&["--steps", "1", "found 0"]),
        Row::new("a flag that is no number").over(&["--seed", "lucky"]).says(&["--seed", "lucky"]),
        Row::new("a flag for a key of another task")
            .over(&["--set", "task.text-to-image.strength=0.5"])
            .says(&["--set task.text-to-image.strength", "unknown key"]),
        Row::new("a flag that sets nothing").over(&["--set", "run.steps"]).says(&["--set", "run.steps", "="]),
        Row::new("an unknown flag").over(&["--step", "3"]).says(&["--step", "--steps"]),
        Row::new("an unknown provider on the command line").over(&["--provider", "gpu"]).says(&[
            "--provider",
            "gpu",
            "cuda",
        ]),
    ]
}
