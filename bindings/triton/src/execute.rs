//! Running the requests that the server hands over together.

use std::ops::Range;
use std::ptr::null_mut;
use std::rc::Rc;

use crate::clock::now;
use crate::config::ModelConfig;
use crate::fault::{Answer, Code, Fault, caught};
use crate::interface::EVENT_PREVIEW;
use crate::join::{groups, joined};
use crate::library::{Images, Pipeline, c_text, text};
use crate::request::{Row, rows};
use crate::response::{Reply, RunImage, log_failure};
use crate::server::{MEMORY_CPU, MEMORY_CPU_PINNED, Object, RELEASE_ALL, check, get, server};
use crate::state::{Instance, Model, log_warning};
use crate::tensor::{DataType, LARGEST, Tensor};
use crate::watch::watched;

/// A request that waits for its rows.
struct Job<'c> {
    request: *mut Object,
    reply: Reply<'c>,
    rows: Range<usize>,
    started: u64,
}

/// The images of a row.
#[derive(Clone)]
struct RowImages {
    images: Rc<Images>,
    range: Range<usize>,
}

/// The result of a row, with the times of its run.
struct RowResult {
    images: Answer<RowImages>,
    times: Range<u64>,
}

/// Answers and releases requests, in their order.
///
/// # Safety
/// The requests are owned, and not released.
pub(crate) unsafe fn execute(instance: &mut Instance, requests: &[*mut Object]) {
    let model = std::sync::Arc::clone(&instance.model);
    let (mut all, mut jobs) = (Vec::new(), Vec::new());
    for request in requests.iter().copied() {
        let started = now();
        // SAFETY: as this function demands.
        let mut reply = match unsafe { Reply::new(request, &model.config) } {
            Ok(reply) => reply,
            Err(fault) => {
                log_failure("a request cannot be answered", Err(fault));
                release(request);
                continue;
            }
        };
        // SAFETY: as this function demands.
        match caught(|| unsafe { read(request, &mut reply, &model.config) }) {
            Ok(rows) => {
                let first = all.len();
                all.extend(rows);
                jobs.push(Job { request, reply, rows: first..all.len(), started });
            }
            Err(fault) => {
                reply.send_fault(&fault);
                report(instance.raw, request, None);
                release(request);
            }
        }
    }
    run_all(instance, &model, &all, jobs);
}

/// Runs all rows, and finishes each job once its rows are done.
fn run_all(instance: &mut Instance, model: &Model, all: &[Row], mut jobs: Vec<Job<'_>>) {
    let rows: Vec<&Row> = all.iter().collect();
    let mut results: Vec<Option<RowResult>> = Vec::new();
    results.resize_with(rows.len(), || None);
    finish(instance.raw, &mut jobs, &mut results);
    for group in groups(&rows, model.config.joins) {
        for (row, result) in run_group(instance, model, &rows, &group, &jobs) {
            results[row] = Some(result);
        }
        finish(instance.raw, &mut jobs, &mut results);
    }
}

/// Answers and releases the jobs whose rows are all done.
fn finish(instance: *mut Object, jobs: &mut Vec<Job<'_>>, results: &mut [Option<RowResult>]) {
    jobs.retain(|job| {
        let own = &mut results[job.rows.clone()];
        if own.iter().any(Option::is_none) {
            return true;
        }
        let own: Vec<_> = own.iter_mut().filter_map(Option::take).collect();
        let start = own.iter().map(|result| result.times.start).min();
        let end = own.iter().map(|result| result.times.end).max();
        let sent = send(job, own);
        if let Err(fault) = &sent {
            job.reply.send_fault(fault);
        }
        let times = sent.ok().and(start.zip(end)).map(|(start, end)| (job.started, start, end));
        report(instance, job.request, times);
        release(job.request);
        false
    });
}

/// Sends the images of a job, or returns the first fault of a row.
fn send(job: &Job<'_>, results: Vec<RowResult>) -> Answer<()> {
    let is_alone = results.len() == 1;
    let rows = results.into_iter().enumerate().map(|(row, result)| {
        let named = |fault: Fault| Fault { message: format!("row {row}: {}", fault.message), ..fault };
        result.images.map_err(|fault| if is_alone { fault } else { named(fault) })
    });
    let rows = rows.collect::<Answer<Vec<_>>>()?;
    let images = |row: &RowImages| -> Vec<(Rc<Images>, usize)> {
        row.range.clone().map(|index| (Rc::clone(&row.images), index)).collect()
    };
    let owned: Vec<_> = rows.iter().map(images).collect();
    let views = owned.iter().map(|row| row.iter().map(|(images, index)| RunImage { images, index: *index }).collect());
    job.reply.send_images(&views.collect::<Vec<_>>())
}

/// Runs a group of rows: together, or each by itself if that fails or makes other images than one for each row.
fn run_group(
    instance: &mut Instance,
    model: &Model,
    rows: &[&Row],
    group: &[usize],
    jobs: &[Job<'_>],
) -> Vec<(usize, RowResult)> {
    let of_group: Vec<_> = group.iter().map(|row| rows[*row]).collect();
    let own_jobs: Vec<_> = jobs.iter().filter(|job| group.iter().any(|row| job.rows.contains(row))).collect();
    let start = now();
    let result = caught(|| run(&mut instance.pipeline, model, &of_group, &own_jobs));
    let times = start..now();
    let is_usable = match &result {
        Ok(images) => group.len() == 1 || is_one_for_each(images, &of_group),
        Err(fault) => group.len() == 1 || fault.code == Code::Cancelled,
    };
    if !is_usable {
        return group.iter().flat_map(|row| run_group(instance, model, rows, &[*row], jobs)).collect();
    }
    if result.is_ok() {
        let size = group.len() as u64;
        let Range { start, end } = times;
        // SAFETY: the instance is executing.
        let reported = check(unsafe { (server().report_batch)(instance.raw, size, start, start, end, end) });
        log_failure("statistics cannot be reported", reported);
    }
    let images = result.map(Rc::new);
    let of_row = |(at, row): (usize, &usize)| {
        let images = images.clone().map(|images| {
            let range = if group.len() == 1 { 0..images.len() } else { at..at + 1 };
            RowImages { images, range }
        });
        (*row, RowResult { images, times: times.clone() })
    };
    group.iter().enumerate().map(of_row).collect()
}

/// True if a joined run made the image of each row, from the row's own seed.
fn is_one_for_each(images: &Images, rows: &[&Row]) -> bool {
    let seed = |row: &Row| row.fields.get("seed").and_then(serde_json::Value::as_u64);
    let is_own = |(index, row): (usize, &&Row)| images.get(index).is_ok_and(|image| Some(image.seed) == seed(row));
    images.len() == rows.len() && rows.iter().enumerate().all(is_own)
}

/// Runs rows as one request, until all its jobs are cancelled.
fn run(pipeline: &mut Pipeline, model: &Model, rows: &[&Row], jobs: &[&Job<'_>]) -> Answer<Images> {
    let row = joined(rows);
    let json = c_text("request", row.json())?;
    let run = model.library.run()?;
    let previewed = jobs.first().filter(|_| model.config.is_decoupled);
    let requests: Vec<_> = jobs.iter().map(|job| job.request).collect();
    watched(&run, &requests, || {
        pipeline.run(&json, &row.images, &run, &mut |event| {
            log_warning(event);
            if let Some(job) = previewed.filter(|_| event.kind == EVENT_PREVIEW) {
                log_failure("a preview cannot be sent", job.reply.send_preview(event));
            }
        })
    })
}

/// Reports the statistics of a request: the times of a success (start of the execution, of the run, and its end).
fn report(instance: *mut Object, request: *mut Object, times: Option<(u64, u64, u64)>) {
    let (started, start, end) = times.unwrap_or_default();
    let done = if times.is_some() { now() } else { 0 };
    // SAFETY: the instance is executing, the request is not released.
    let reported = unsafe { (server().report_request)(instance, request, times.is_some(), started, start, end, done) };
    log_failure("statistics cannot be reported", check(reported));
}

fn release(request: *mut Object) {
    // SAFETY: the request is owned, and not used any more.
    let released = check(unsafe { (server().request_release)(request, RELEASE_ALL) });
    log_failure("a request cannot be released", released);
}

/// Reads the inputs and requested outputs of a request.
///
/// # Safety
/// The request is not released.
unsafe fn read(request: *mut Object, reply: &mut Reply<'_>, config: &ModelConfig) -> Answer<Vec<Row>> {
    let server = server();
    // SAFETY: as this function demands.
    let (tensors, outputs) = unsafe {
        let outputs = get(0, |count| (server.request_output_count)(request, count))?;
        let name = |at| get(std::ptr::null(), |name| (server.request_output)(request, at, name)).map(|name| text(name));
        let outputs = (0..outputs).map(name).collect::<Answer<Vec<_>>>()?;
        let inputs = get(0, |count| (server.request_input_count)(request, count))?;
        let tensor = |at| tensor(get(null_mut(), |input| (server.request_input)(request, at, input))?);
        ((0..inputs).map(tensor).collect::<Answer<Vec<_>>>()?, outputs)
    };
    reply.request(&outputs);
    rows(&tensors, config.is_batched, config.allows_paths)
}

/// Copies an input.
///
/// # Safety
/// The request of the input is not released.
unsafe fn tensor(input: *mut Object) -> Answer<Tensor> {
    let (mut name, mut shape) = (std::ptr::null(), std::ptr::null());
    let (mut data_type, mut rank, mut size, mut buffers) = (0, 0, 0, 0);
    // SAFETY: the results may be written; name and shape belong to the input.
    let (name, shape) = unsafe {
        let properties = server().input_properties;
        let (name_place, shape_place) = (&raw mut name, &raw mut shape);
        let places = (&raw mut data_type, &raw mut rank, &raw mut size, &raw mut buffers);
        check(properties(input, name_place, places.0, shape_place, places.1, places.2, places.3))?;
        let shape = if rank == 0 { &[] } else { std::slice::from_raw_parts::<i64>(shape, rank as usize) };
        (text(name), shape)
    };
    let fault = |problem: String| Fault::input(&name, problem);
    let data_type = DataType::of(data_type).ok_or_else(|| fault("has a data type that no input takes".to_owned()))?;
    let shape =
        shape.iter().map(|axis| usize::try_from(*axis).map_err(|_| fault(format!("its shape has the axis {axis}"))));
    let shape = shape.collect::<Answer<Vec<_>>>()?;
    if size > LARGEST {
        return Err(fault(format!("expected at most {LARGEST} bytes, found {size}")));
    }
    let mut data = Vec::new();
    for at in 0..buffers {
        let (mut length, mut memory, mut memory_id) = (0_u64, MEMORY_CPU, 0);
        // SAFETY: the buffer belongs to the input and has this length.
        unsafe {
            let buffer = get(std::ptr::null(), |buffer| {
                (server().input_buffer)(input, at, buffer, &raw mut length, &raw mut memory, &raw mut memory_id)
            })?;
            if ![MEMORY_CPU, MEMORY_CPU_PINNED].contains(&memory) {
                return Err(fault("is in the memory of a GPU\nhint: send it in that of the CPU".to_owned()));
            }
            if length > 0 {
                let length = usize::try_from(length).map_err(|_| fault(format!("has {length} bytes")))?;
                data.extend_from_slice(std::slice::from_raw_parts(buffer.cast::<u8>(), length));
            }
        }
    }
    Ok(Tensor { name, data_type, shape, data })
}
