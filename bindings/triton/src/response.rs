//! Responses: images, previews and errors become tensors.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use crate::config::{DeclaredOutput, ModelConfig};
use crate::fault::{Answer, Fault};
use crate::interface::LdmEvent;
use crate::library::{ImageView, Images};
use crate::names::Output;
use crate::server::{Level, MEMORY_CPU, MEMORY_CPU_PINNED, Object, RESPONSE_FINAL, check, error_of, get, log, server};
use crate::tensor::DataType;

/// An image of a run.
#[derive(Clone, Copy)]
pub(crate) struct RunImage<'i> {
    pub images: &'i Images,
    pub index: usize,
}

/// The place where a request's responses go.
pub(crate) struct Reply<'c> {
    factory: *mut Object,
    config: &'c ModelConfig,
    outputs: Vec<DeclaredOutput>,
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        // SAFETY: the factory is owned.
        let result = check(unsafe { (server().factory_delete)(self.factory) });
        log_failure("a response factory cannot be deleted", result);
    }
}

impl<'c> Reply<'c> {
    /// Prepares the responses of a request.
    ///
    /// # Safety
    /// `request` is a request that is not released.
    pub(crate) unsafe fn new(request: *mut Object, config: &'c ModelConfig) -> Answer<Self> {
        // SAFETY: as this function demands.
        let factory = get(null_mut(), |factory| unsafe { (server().factory_new)(factory, request) })?;
        Ok(Self { factory, config, outputs: Vec::new() })
    }

    /// Chooses the outputs that the request names.
    pub(crate) fn request(&mut self, names: &[String]) {
        let is_requested =
            |declared: &&DeclaredOutput| names.iter().any(|name| declared.output.name().to_bytes() == name.as_bytes());
        self.outputs = self.config.outputs.iter().filter(is_requested).copied().collect();
    }

    fn response(&self) -> Answer<Response> {
        // SAFETY: the factory is not deleted.
        get(null_mut(), |response| unsafe { (server().response_new)(response, self.factory) }).map(Response)
    }

    /// Sends an error, which ends the request.
    pub(crate) fn send_fault(&self, fault: &Fault) {
        let sent = self.response().and_then(|response| response.send(RESPONSE_FINAL, Some(fault)));
        log_failure("an error cannot be sent", sent);
    }

    /// Sends the images of all rows: one response, or with a decoupled model one for each image.
    pub(crate) fn send_images(&self, rows: &[Vec<RunImage<'_>>]) -> Answer<()> {
        let images: Vec<_> = rows.iter().flatten().copied().collect();
        if self.config.is_decoupled {
            let last = images.len().saturating_sub(1);
            return images.iter().enumerate().try_for_each(|(at, image)| {
                let flags = if at == last { RESPONSE_FINAL } else { 0 };
                self.filled(&[*image], false)?.send(flags, None)
            });
        }
        if self.config.is_batched
            && let Some(row) = rows.iter().position(|row| row.len() != 1)
        {
            let problem = format!("row {row}: makes {} images, and a row of a batch has one", rows[row].len());
            return Err(Fault::invalid(format!(
                "{problem}\nhint: send a row for each image, or set max_batch_size to 0"
            )));
        }
        self.filled(&images, self.config.is_batched)?.send(RESPONSE_FINAL, None)
    }

    fn filled(&self, images: &[RunImage<'_>], is_batched: bool) -> Answer<Response> {
        let response = self.response()?;
        let views = images.iter().map(|image| image.images.get(image.index)).collect::<Answer<Vec<_>>>()?;
        let count = axis(images.len());
        // A batch has its axis before that of the values.
        let shape = if is_batched { vec![count, 1] } else { vec![count] };
        for DeclaredOutput { output, rank } in &self.outputs {
            match output {
                Output::Image => {
                    let has_count = is_batched || *rank == 4;
                    response.image(&views, has_count)?;
                }
                Output::Encoded => {
                    let (format, quality) = (&self.config.format, self.config.quality);
                    let encoded = images.iter().map(|image| image.images.encode(image.index, format, quality));
                    response.texts(*output, &shape, &encoded.collect::<Answer<Vec<_>>>()?)?;
                }
                Output::Seed => {
                    let seeds: Vec<_> = views.iter().flat_map(|view| view.seed.to_ne_bytes()).collect();
                    response.write(output.name(), DataType::UINT64, &shape, &[&seeds])?;
                }
                Output::Record => {
                    let records: Vec<_> = views.iter().map(|view| view.record).collect();
                    response.texts(*output, &shape, &records)?;
                }
                Output::Event => {
                    let [image] = images else { continue };
                    let (index, seed) = (image.index, views[0].seed);
                    let (width, height) = (views[0].width, views[0].height);
                    let event = serde_json::json!({
                        "event": "image", "index": index, "seed": seed, "width": width, "height": height
                    });
                    response.texts(*output, &[1], &[event.to_string().as_bytes()])?;
                }
            }
        }
        Ok(response)
    }

    /// Sends a preview, before the images.
    pub(crate) fn send_preview(&self, event: &LdmEvent) -> Answer<()> {
        // SAFETY: the event and what it points to live as long as its reference.
        let (image, json) = unsafe {
            let json = if event.json.is_null() { c"" } else { CStr::from_ptr(event.json) };
            (event.image.as_ref(), json)
        };
        let Some(image) = image else { return Ok(()) };
        let response = self.response()?;
        for DeclaredOutput { output, rank } in &self.outputs {
            match output {
                Output::Image => {
                    // SAFETY: as above.
                    let rgb = unsafe { std::slice::from_raw_parts(image.rgb, image.rgb_length) };
                    let sides = [i64::from(image.height), i64::from(image.width), 3];
                    let shape = if *rank == 4 { [&[1][..], &sides].concat() } else { sides.to_vec() };
                    response.write(output.name(), DataType::UINT8, &shape, &[rgb])?;
                }
                Output::Event => response.texts(*output, &[1], &[json.to_bytes()])?,
                Output::Encoded | Output::Seed | Output::Record => {}
            }
        }
        response.send(0, None)
    }
}

/// A response that is not sent yet.
struct Response(*mut Object);

impl Drop for Response {
    fn drop(&mut self) {
        // SAFETY: a response that was not sent is owned.
        let result = check(unsafe { (server().response_delete)(self.0) });
        log_failure("a response cannot be deleted", result);
    }
}

impl Response {
    /// Sends the response, with an error if there is one.
    fn send(self, flags: u32, fault: Option<&Fault>) -> Answer<()> {
        let error = fault.map_or(null_mut(), error_of);
        let response = self.0;
        std::mem::forget(self);
        // SAFETY: the server takes the response; the error remains ours.
        let result = check(unsafe { (server().response_send)(response, flags, error) });
        if !error.is_null() {
            // SAFETY: it was made above.
            unsafe { (server().error_delete)(error) };
        }
        result
    }

    /// Writes pixels: `[h, w, 3]` of one image, or `[n, h, w, 3]` of images of one size.
    fn image(&self, views: &[ImageView<'_>], has_count: bool) -> Answer<()> {
        let Some(first) = views.first() else { return Err(Fault::internal("a run without images")) };
        let hint = "hint: request ENCODED instead, or make one image a request";
        if !has_count && views.len() != 1 {
            let count = views.len();
            let problem = format!("output IMAGE: has dims for one image, and the request made {count}");
            return Err(Fault::invalid(format!(
                "{problem}\nhint: give it the dims [-1, -1, -1, 3], or request ENCODED"
            )));
        }
        if let Some(other) = views.iter().find(|view| (view.width, view.height) != (first.width, first.height)) {
            let (w, h) = (other.width, other.height);
            let problem =
                format!("output IMAGE: images of {}×{} and {w}×{h} have no common shape", first.width, first.height);
            return Err(Fault::invalid(format!("{problem}\n{hint}")));
        }
        let sides = [i64::from(first.height), i64::from(first.width), 3];
        let shape = if has_count { [&[axis(views.len())][..], &sides].concat() } else { sides.to_vec() };
        let pixels: Vec<_> = views.iter().map(|view| view.rgb).collect();
        self.write(Output::Image.name(), DataType::UINT8, &shape, &pixels)
    }

    /// Writes texts: each with its length before it.
    fn texts(&self, output: Output, shape: &[i64], texts: &[&[u8]]) -> Answer<()> {
        let too_long = |_| Fault::internal(format!("{}: too long", output.name().to_string_lossy()));
        let lengths = texts.iter().map(|text| u32::try_from(text.len()).map(u32::to_le_bytes).map_err(too_long));
        let lengths = lengths.collect::<Answer<Vec<_>>>()?;
        let parts: Vec<&[u8]> = lengths.iter().zip(texts).flat_map(|(length, text)| [&length[..], text]).collect();
        self.write(output.name(), DataType::BYTES, shape, &parts)
    }

    /// Writes an output, whose bytes are `parts` one after the other.
    fn write(&self, name: &CStr, data_type: u32, shape: &[i64], parts: &[&[u8]]) -> Answer<()> {
        let rank = u32::try_from(shape.len()).unwrap_or(u32::MAX);
        // SAFETY: the response is not sent, name and shape are copied.
        let output = get(null_mut(), |output| unsafe {
            (server().response_output)(self.0, output, name.as_ptr(), data_type, shape.as_ptr(), rank)
        })?;
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let (mut memory, mut memory_id) = (MEMORY_CPU, 0);
        // SAFETY: the output belongs to the response.
        let buffer = get(null_mut::<c_void>(), |buffer| unsafe {
            (server().output_buffer)(output, buffer, length as u64, &raw mut memory, &raw mut memory_id)
        })?;
        if ![MEMORY_CPU, MEMORY_CPU_PINNED].contains(&memory) || buffer.is_null() {
            let name = name.to_string_lossy();
            return Err(Fault::unavailable(format!("output {name}: expected memory of the CPU for {length} bytes")));
        }
        let mut place = buffer.cast::<u8>();
        for part in parts {
            // SAFETY: the buffer has room for all parts.
            unsafe {
                place.copy_from_nonoverlapping(part.as_ptr(), part.len());
                place = place.add(part.len());
            }
        }
        Ok(())
    }
}

fn axis(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Logs a failure that nobody else is told of.
pub(crate) fn log_failure(problem: &str, result: Answer<()>) {
    if let Err(fault) = result {
        log(Level::Warn, &format!("{problem}: {}", fault.message));
    }
}
