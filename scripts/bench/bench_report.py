"""The tables of scripts/bench/bench.py out of its raw samples. Not run by itself: bench.py --report FILE.json."""

from statistics import median

GIB = 2**30


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(head, rows):
    return "\n".join([row(head), row(["---"] + ["---:"] * (len(head) - 1)), *map(row, rows), ""])


def number(values, form="{:.1f}", scale=1.0):
    """The median, and where there are several the smallest and the largest."""
    values = [v / scale for v in values if v is not None]
    if not values:
        return "–"
    text = form.format(median(values))
    if len(values) > 1:
        text += f" [{form.format(min(values))}–{form.format(max(values))}]"
    return text


def paired(samples, base, key):
    """The median over rounds of this engine's figure by the base's of the same round."""
    by_round = {s["round"]: key(s) for s in base}
    ratios = [key(s) / by_round[s["round"]] for s in samples if key(s) and by_round.get(s["round"])]
    return f"{median(ratios):.2f}" if ratios else "–"


def difference(samples):
    found = [s["against"] for s in samples if s.get("against")]
    if not found:
        return ["–"] * 3
    latents = max(f["latents"] for f in found)
    most, share = max(f["pixels"] for f in found), max(f["pixels_share"] for f in found)
    psnr = min((f["psnr"] for f in found if f.get("psnr")), default=None)
    return [f"{latents:.1e}", f"{most} on {100 * share:.3f} %", f"{psnr:.1f}" if psnr else "–"]


def images(raw, steps):
    samples = [s for s in raw["samples"] if s["steps"] == steps]
    engines = list(dict.fromkeys((s["engine"], s["first"]) for s in samples))
    base = [s for s in samples if s["engine"] == raw["base"] and not s["first"]]
    times, others = [], []
    for engine, first in engines:
        own = [s for s in samples if (s["engine"], s["first"]) == (engine, first)]
        name = engine + (" (first start)" if first else "")

        def ratio(key):
            return "–" if first else paired(own, base, key)

        times.append([
            name,
            own[0]["precision"],
            str(len(own)),
            number([s["wall"] for s in own]),
            ratio(lambda s: s["wall"]),
            number([s["cpu"] for s in own]),
            ratio(lambda s: s["cpu"]),
            number([s["first_step_at"] for s in own]),
            number([None if s["load"] is None else s["import"] + s["load"] for s in own], "{:.2f}"),
            number([median(s["steps_taken"]) for s in own if s["steps_taken"]], "{:.2f}"),
            ratio(lambda s: median(s["steps_taken"]) if s["steps_taken"] else None),
            number([median(s["steps_cpu"]) for s in own if s["steps_cpu"]], "{:.2f}"),
            number([s["decode_s"] for s in own], "{:.2f}"),
            number([100 * s["foreign"] for s in own], "{:.0f}"),
        ])
        others.append([
            name,
            f"{median(s['peak_anon'] for s in own) / GIB:.2f}",
            ratio(lambda s: s["peak_anon"]),
            f"{median(s['peak_rss'] for s in own) / GIB:.2f}",
            ratio(lambda s: s["peak_rss"]),
            *difference(own),
        ])
    by = f"× {raw['base']}"
    head = ["engine", "precision", "n", "wall s", by, "CPU s", by, "start to first step s", "import + load s", "step s", by, "step CPU s", "decode s", "foreign %"]
    text = f"## {steps} steps, {raw['size']}×{raw['size']}\n\n" + table(head, times)
    head = ["engine", "peak private GiB", by, "peak resident GiB", by, f"latents against {raw['base']}", "pixels against it", "PSNR, dB"]
    return text + "\n" + table(head, others)


def parts(raw):
    flops, blocks = raw.get("flops") or {}, raw["parts"]
    gemm = max(g for b in blocks for g in b["sgemm"])
    base = [b for b in blocks if b["engine"] == raw["base"]]
    text = f"sgemm of this machine in the same run (numpy): {number([g for b in blocks for g in b['sgemm']], '{:.0f}')} GFLOP/s\n\n"
    for key, title in (("unet", "One guided evaluation of the UNet"), ("decode", "One decoding")):
        rows = []
        for engine in dict.fromkeys(b["engine"] for b in blocks):
            own = [b for b in blocks if b["engine"] == engine]
            times = [t for b in own for t in b[key]]
            rate = flops[key] / 1e9 / median(times) if flops.get(key) and times else None
            rows.append([
                engine,
                own[0]["precision"],
                f"{len(own)}×{len(own[0][key])}",
                number(times, "{:.2f}"),
                paired(own, base, lambda b: median(b[key])),
                number([t for b in own for t in b[key + "_cpu"]], "{:.2f}"),
                paired(own, base, lambda b: median(b[key + "_cpu"])),
                f"{rate:.0f}" if rate else "–",
                f"{100 * rate / gemm:.0f}" if rate else "–",
                number([b.get(key + "_first") for b in own], "{:.2f}"),
                number([b.get(key + "_load") for b in own], "{:.2f}"),
                number([100 * b["foreign"] for b in own], "{:.0f}"),
            ])
        by = f"× {raw['base']}"
        head = ["engine", "precision", "blocks×samples", "s", by, "CPU s", by, "GFLOP/s", "% of best sgemm", "first s", "load s", "foreign %"]
        counted = f", {flops[key] / 1e9:.1f} GFLOP" if flops.get(key) else ""
        text += f"## {title}, {raw['size']}×{raw['size']}{counted}\n\n" + table(head, rows) + "\n"
    return text


NOTES = """Medians, [smallest–largest]. Engines took turns (A B C A B C), each run a new process; × is the median of the ratios
of runs of the same round. Load is the opening of all graphs; a step is the median of its run. CPU seconds of a whole run are the
kernel's, those of a step are read 20 times a second.
Peak resident memory is the kernel's, with files mapped; peak private is anonymous memory, looked at 20 times a second. Foreign is
the share of the machine's CPU time that others took meanwhile. Latents: largest difference by the largest value.
"""


PART_NOTE = """Single evaluations of ours are images of one step in one process, guidance and scheduler included; a decoding of ours
includes the conversion to 8-bit pixels, and the first one the opening of the decoder.
"""


def report(raw):
    h = raw["heading"]
    text = [f"# {raw['model']}: {h['cpu']}, {h['cpus']} cores, {h['memory_gib']:.0f} GiB, {h['kernel']}", ""]
    text.append("Instruction sets: " + " ".join(h["instruction_sets"]) + "".join(f"; {k}={v}" for k, v in h["limits"].items()) + ".")
    text.append(", ".join(f"{k} {v}" for k, v in h["versions"].items()) + f"; {h['date']}")
    text.append(f"Files in the page cache: {'no' if raw['cold'] else 'yes'}. ours: {h['ours']}.")
    text += [f"Not run: {name} ({why})." for name, why in raw["absent"].items()]
    text.append("")
    if raw.get("parts"):
        text += [parts(raw), PART_NOTE]
    for steps in dict.fromkeys(s["steps"] for s in raw["samples"]):
        text.append(images(raw, steps))
    text.append(NOTES)
    for failure in raw["failures"]:
        text.append(f"FAILED {failure['engine']}: {failure['why']}")
    return "\n".join(text)
