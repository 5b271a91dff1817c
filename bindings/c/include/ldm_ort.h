/*
 * ldm-ort: latent diffusion models on ONNX Runtime. The C interface.
 *
 * `ldm_get_api(LDM_API_VERSION)` returns a table of functions. Tables only grow: a program that was compiled with an older
 * header runs with a newer library. `ldm_get_api` returns NULL for a version that the library does not know.
 *
 * Errors: functions that can fail return a status, NULL for success. A status is released with `status_release`. After an
 * error every object can be used as before.
 *
 * Strings are UTF-8 and end in NUL. Those that a function takes are copied before it returns. Those that it returns belong
 * to the object named there.
 *
 * Threads: an engine may be used by any threads at the same time. A pipeline may be used from any thread, and runs one
 * request at a time: a second call meanwhile, also one from a callback, fails with LDM_INVALID_REQUEST. `run_cancel` may be
 * called from any thread and from signal handlers. Everything else about one object is for one thread at a time.
 *
 * Processes: a process that forked after a pipeline was opened has neither the library's threads nor those of ONNX Runtime.
 * Open pipelines in the process that uses them.
 *
 * Written by cbindgen from bindings/c/src; do not edit.
 */

#ifndef LDM_ORT_H
#define LDM_ORT_H

#include <stddef.h>
#include <stdint.h>
/** The version of the table of functions that this header describes. */
#define LDM_API_VERSION 1


// The kinds of errors, by cause. Later versions may add kinds.
typedef enum LdmErrorKind {
  // No error.
  LDM_OK = 0,
  // A key, a value or an input of the request, or an argument of the call.
  LDM_INVALID_REQUEST = 1,
  // The pipeline file, the model directory or a graph.
  LDM_INVALID_MODEL = 2,
  // An execution provider, or ONNX Runtime's library.
  LDM_PROVIDER = 3,
  // A file that cannot be read or written.
  LDM_IO = 4,
  // Insufficient memory.
  LDM_MEMORY = 5,
  // A tensor with values that are not finite; no image was made.
  LDM_NON_FINITE = 6,
  // The run was cancelled.
  LDM_CANCELLED = 7,
  // A bug of the library.
  LDM_INTERNAL = 8,
} LdmErrorKind;

// The kinds of events. Later versions may add kinds.
typedef enum LdmEventKind {
  // Anything that has no kind of its own; `json` says what.
  LDM_EVENT_OTHER = 0,
  // A graph was opened.
  LDM_EVENT_LOADING = 1,
  // A step of a batch is done: `step` of `steps`.
  LDM_EVENT_STEP = 2,
  // A preview of an image: `image`.
  LDM_EVENT_PREVIEW = 3,
  // A finished image: `image`.
  LDM_EVENT_IMAGE = 4,
  // Something that deserves attention, although the run goes on.
  LDM_EVENT_WARNING = 5,
  // The run is over.
  LDM_EVENT_DONE = 6,
} LdmEventKind;

// Opens pipelines. One is enough for a program.
typedef struct LdmEngine LdmEngine;

// The images of a run. They own their pixels, records and encoded bytes.
typedef struct LdmImages LdmImages;

// An open pipeline: one model or several in a row, ready for requests.
typedef struct LdmPipeline LdmPipeline;

// A run that can be cancelled: one for each call that is to be stopped from elsewhere.
typedef struct LdmRun LdmRun;

// The result of a call that failed: a kind and a message.
typedef struct LdmStatus LdmStatus;

// An image: pixels and how they were made.
typedef struct LdmImage {
  // Width and height in pixels.
  uint32_t width;
  uint32_t height;
  // The index in the request, counted from 0, prompts outermost.
  size_t index;
  // The seed of this image alone; 0 for a preview.
  uint64_t seed;
  // Rows from the top, three bytes (red, green, blue) a pixel: `rgb_length` = 3 * width * height bytes.
  const uint8_t *rgb;
  size_t rgb_length;
  // The record of how it was made, as JSON; NULL in events.
  const char *record;
} LdmImage;

// Something that happened during a call. It lives until the callback returns.
typedef struct LdmEvent {
  // The kind.
  enum LdmEventKind kind;
  // The step, counted from 1, and the number of steps, of LDM_EVENT_STEP and LDM_EVENT_PREVIEW; else 0.
  uint32_t step;
  uint32_t steps;
  // The image of LDM_EVENT_PREVIEW and LDM_EVENT_IMAGE; else NULL.
  const struct LdmImage *image;
  // The event as a JSON object whose `event` names it, without pixels.
  const char *json;
} LdmEvent;

// A function that is called with each event, on the thread that made the call. It must return normally, and must not call
// functions of the pipeline that runs. `user` is what the caller gave.
typedef void (*LdmObserver)(const struct LdmEvent *event, void *user);

// An input image of a request in memory.
typedef struct LdmInput {
  // The key of the request that the image is for: `image`, `mask`, `control.0.image`.
  const char *key;
  // The image; copied before the call returns.
  const uint8_t *data;
  size_t length;
  // Width and height in pixels of RGB pixels, rows from the top, three bytes a pixel: `length` = 3 * width * height.
  // Both 0: `data` is a PNG, JPEG, WebP or BMP file.
  uint32_t width;
  uint32_t height;
} LdmInput;

// The functions of the library. Later versions add functions at the end.
typedef struct LdmApi {
  // The version of this table.
  uint32_t version;
  // Returns the version of this library, such as "0.1.0". It lives as long as the library.
  const char *(*library_version)(void);
  // Returns the kind of a status; LDM_OK for NULL.
  enum LdmErrorKind (*status_kind)(const struct LdmStatus *status);
  // Returns what is wrong, in one or several lines: the file, key or tensor, what was expected, what was found, and what
  // to do. It belongs to the status; "" for NULL.
  const char *(*status_message)(const struct LdmStatus *status);
  // Releases a status; nothing for NULL.
  void (*status_release)(struct LdmStatus *status);
  // Creates an engine, which the caller releases with `engine_release`. Touches no file.
  //
  // `settings` is NULL or a JSON object: `runtime` (the path of ONNX Runtime's library), `offline`, `index_url`,
  // `cache_dir`, `graph_cache`, `graph_cache_size`, `host_threads`. What is absent comes from the environment.
  //
  // `ort_api_base` is NULL, or the host's `const OrtApiBase*` (`OrtGetApiBase()`), whose library must stay loaded: its
  // environment is then the one that pipelines use, and `host_threads` runs their graphs on its global thread pool. The
  // process's first pipeline decides on the library; a later engine cannot use another.
  struct LdmStatus *(*engine_create)(const char *settings, const void *ort_api_base, struct LdmEngine **engine);
  // Releases an engine. Its pipelines remain usable.
  void (*engine_release)(struct LdmEngine *engine);
  // Creates a run, which the caller releases with `run_release` after the call that it was given to has returned.
  struct LdmStatus *(*run_create)(struct LdmRun **run);
  // Cancels the call that a run was given to, within one node of a graph: it fails with LDM_CANCELLED, and so does every
  // later call with this run. From any thread and any signal handler.
  void (*run_cancel)(const struct LdmRun *run);
  // Releases a run.
  void (*run_release)(struct LdmRun *run);
  // Opens a pipeline file or a model directory, and loads ONNX Runtime if the process has not. The caller releases the
  // pipeline with `pipeline_release`.
  //
  // `settings` is NULL or a JSON object with keys of the pipeline file over the file's own: its tables
  // (`{"device": {"threads": 2}}`), or keys of `[device]` by themselves (`{"provider": "cpu", "threads": 2}`). `run` may
  // be NULL, and so may `observer`, which is called with `user` on this thread.
  struct LdmStatus *(*pipeline_open)(const struct LdmEngine *engine,
                                     const char *path,
                                     const char *settings,
                                     const struct LdmRun *run,
                                     LdmObserver observer,
                                     void *user,
                                     struct LdmPipeline **pipeline);
  // As `pipeline_open`, for the text of a pipeline file. Its paths are relative to the current directory.
  struct LdmStatus *(*pipeline_open_toml)(const struct LdmEngine *engine,
                                          const char *toml,
                                          const char *settings,
                                          const struct LdmRun *run,
                                          LdmObserver observer,
                                          void *user,
                                          struct LdmPipeline **pipeline);
  // Returns the version of ONNX Runtime that a pipeline uses, such as "1.31.1". It belongs to the pipeline.
  const char *(*pipeline_runtime_version)(const struct LdmPipeline *pipeline);
  // Checks a request without running it. Arguments as of `pipeline_run`.
  struct LdmStatus *(*pipeline_check)(const struct LdmPipeline *pipeline,
                                      const char *request,
                                      const struct LdmInput *inputs,
                                      size_t input_count);
  // Makes the images of a request. The caller releases them with `images_release`.
  //
  // `request` is NULL for what the pipeline's file describes, or a JSON object with what differs: tables of a pipeline
  // file, or flat fields such as `{"prompt": "a lighthouse", "seed": 7, "steps": 20}`. `inputs` are images in memory.
  // `run` and `observer` may be NULL; `observer` is called with `user` on this thread.
  struct LdmStatus *(*pipeline_run)(const struct LdmPipeline *pipeline,
                                    const char *request,
                                    const struct LdmInput *inputs,
                                    size_t input_count,
                                    const struct LdmRun *run,
                                    LdmObserver observer,
                                    void *user,
                                    struct LdmImages **images);
  // Releases a pipeline. If a call of it is running, its memory is released when that returns.
  void (*pipeline_release)(struct LdmPipeline *pipeline);
  // Returns the number of images; 0 for NULL.
  size_t (*images_count)(const struct LdmImages *images);
  // Returns an image, which belongs to the images; NULL past the last.
  const struct LdmImage *(*images_get)(const struct LdmImages *images, size_t index);
  // Encodes an image with its record. `format` is "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100 for JPEG, 0
  // for the default of 90 and for the lossless formats. The bytes belong to the images.
  struct LdmStatus *(*images_encode)(const struct LdmImages *images,
                                     size_t index,
                                     const char *format,
                                     int quality,
                                     const uint8_t **bytes,
                                     size_t *length);
  // Releases images, with everything that belongs to them.
  void (*images_release)(struct LdmImages *images);
} LdmApi;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the table of functions of a version, 1 up to the library's own; NULL for a version that it does not know. The
// table lives as long as the library. From any thread.
const struct LdmApi *ldm_get_api(uint32_t version);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LDM_ORT_H */
