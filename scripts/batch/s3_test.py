"""Runs batches into a bucket of moto's server, which it starts: two shards, a resumed run, verification.

    pip install 'moto[server]' boto3
    cargo build --features s3
    python scripts/batch/s3_test.py --program target/debug/ldm-ort

The bucket's images have to be those of a folder, byte for byte.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import boto3
from moto.server import ThreadedMotoServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUCKET, PREFIX = "images", "first/run"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/ldm-ort"), help="the program, built with s3")
    parser.add_argument("--jobs", type=int, default=12, help="the number of images")
    arguments = parser.parse_args()
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    own = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    os.environ.update(own)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(f"a red circle, number {at}") + "\n" for at in range(arguments.jobs)))

        def batch(*parts, code=0, out=f"s3://{BUCKET}/{PREFIX}"):
            action = [part for part in parts if part == "verify"]
            flags = [part for part in parts if part != "verify"]
            request = [str(ROOT / "models/shapes"), str(prompts), "--out", out, "--steps", "2", "--json", *flags]
            answer = subprocess.run([arguments.program, "batch", *action, *request], capture_output=True, text=True)
            assert answer.returncode == code, f"{parts}: exit {answer.returncode}\n{answer.stdout}{answer.stderr}"
            return [json.loads(line) for line in answer.stdout.splitlines()]

        def objects():
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
            names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            return {name[len(PREFIX) + 1:]: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}

        batch(out=str(folder / "out"))
        local = {str(path.relative_to(folder / "out")): path.read_bytes() for path in (folder / "out").glob("??/*.png")}
        made = [batch("--shard", shard)[-1]["summary"]["made"] for shard in ("1/2", "2/2")]
        assert sum(made) == arguments.jobs, made
        stored = objects()
        images = {name: data for name, data in stored.items() if name.endswith(".png")}
        assert images == local, "the bucket's images are not the folder's"
        lines = [line for name, data in stored.items() if name.startswith("manifest/") for line in data.decode().splitlines()]
        assert len(lines) == arguments.jobs, f"{len(lines)} lines in the manifests"
        again = batch()[-1]["summary"]
        assert (again["made"], again["existing"]) == (0, arguments.jobs), again
        batch("verify")
        gone, damaged = sorted(images)[:2]
        client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{gone}")
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{damaged}", Body=images[damaged][:-40])
        found = batch("verify", code=1)
        assert {line["file"] for line in found[:-1]} == {gone, damaged}, found
        client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{damaged}")
        assert batch()[-1]["summary"]["made"] == 2
        assert {name: data for name, data in objects().items() if name.endswith(".png")} == local
        batch("verify")
        os.environ["AWS_SECRET_ACCESS_KEY"] = "b"
        missing = batch(code=1, out="s3://no-such-bucket/x") if arguments.jobs else []
        assert missing == [], missing
        print(f"{arguments.jobs} images in s3://{BUCKET}/{PREFIX}: two shards, resumed, verified; the bytes of a folder")
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
