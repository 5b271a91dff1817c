// ldm-ort: latent diffusion models on ONNX Runtime. The C++17 interface, over ldm_ort.h.
//
//     ldm_ort::Engine engine;
//     ldm_ort::Pipeline pipeline(engine, "pipeline.toml");
//     for (const ldm_ort::Image &image : pipeline.run(R"({"prompt": "a lighthouse", "seed": 7})"))
//       image.save("lighthouse-" + std::to_string(image.index()) + ".png");
//
// Failures are thrown as ldm_ort::Error. Objects are moved and not copied; ownership and threads are as in ldm_ort.h.
#ifndef LDM_ORT_HPP
#define LDM_ORT_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ldm_ort.h"

namespace ldm_ort {

/// A call that failed: `kind()` is its kind, `what()` the file, key or tensor, what is wrong with it and what to do.
class Error : public std::runtime_error {
 public:
  Error(LdmErrorKind kind, const std::string &message) : std::runtime_error(message), kind_(kind) {}
  LdmErrorKind kind() const noexcept { return kind_; }

 private:
  LdmErrorKind kind_;
};

/// The functions of the library.
inline const LdmApi &api() {
  static const LdmApi *const found = ldm_get_api(LDM_API_VERSION);
  if (found == nullptr) throw Error(LDM_INTERNAL, "libldm_ort is older than the header ldm_ort.h");
  return *found;
}

namespace detail {

inline void check(LdmStatus *status) {
  if (status == nullptr) return;
  const std::unique_ptr<LdmStatus, void (*)(LdmStatus *)> owned(status, api().status_release);
  throw Error(api().status_kind(status), api().status_message(status));
}

inline const char *or_null(const std::string &text) { return text.empty() ? nullptr : text.c_str(); }

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T *)>;

}  // namespace detail

/// Opens pipelines. One is enough for a program.
class Engine {
 public:
  /// `settings` is a JSON object or empty; `ort_api_base` is the host's own `OrtGetApiBase()` or null.
  explicit Engine(const std::string &settings = "", const void *ort_api_base = nullptr)
      : engine_(nullptr, api().engine_release) {
    LdmEngine *created = nullptr;
    detail::check(api().engine_create(detail::or_null(settings), ort_api_base, &created));
    engine_.reset(created);
  }
  const LdmEngine *get() const noexcept { return engine_.get(); }

 private:
  detail::Owned<LdmEngine> engine_;
};

/// A switch that stops the call that it is given to, from any thread and any signal handler.
class Run {
 public:
  Run() : run_(nullptr, api().run_release) {
    LdmRun *created = nullptr;
    detail::check(api().run_create(&created));
    run_.reset(created);
  }
  void cancel() const noexcept { api().run_cancel(run_.get()); }
  const LdmRun *get() const noexcept { return run_.get(); }

 private:
  detail::Owned<LdmRun> run_;
};

/// Receives events on the thread that made the call. What it throws ends the call and is thrown from there.
using Observer = std::function<void(const LdmEvent &)>;

/// An image of a run. It shares ownership of the images of that run.
class Image {
 public:
  Image(std::shared_ptr<LdmImages> images, std::size_t at)
      : images_(std::move(images)), at_(at), view_(api().images_get(images_.get(), at)) {}

  std::uint32_t width() const noexcept { return view_->width; }
  std::uint32_t height() const noexcept { return view_->height; }
  std::size_t index() const noexcept { return view_->index; }
  std::uint64_t seed() const noexcept { return view_->seed; }
  /// Rows from the top, three bytes a pixel.
  const std::uint8_t *rgb() const noexcept { return view_->rgb; }
  std::size_t rgb_length() const noexcept { return view_->rgb_length; }
  /// The record of how it was made, as JSON.
  std::string record() const { return view_->record; }

  /// Encodes it with its record as "png", "jpeg" or "webp"; `quality` is for JPEG, 0 the default.
  std::vector<std::uint8_t> encode(const std::string &format = "png", int quality = 0) const {
    const std::uint8_t *bytes = nullptr;
    std::size_t length = 0;
    detail::check(api().images_encode(images_.get(), at_, format.c_str(), quality, &bytes, &length));
    return std::vector<std::uint8_t>(bytes, bytes + length);
  }

  /// Writes it in the format of the path's extension.
  void save(const std::string &path) const {
    const std::size_t dot = path.find_last_of('.');
    const std::vector<std::uint8_t> bytes = encode(dot == std::string::npos ? "png" : path.substr(dot + 1));
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw Error(LDM_IO, path + ": cannot be written");
  }

 private:
  std::shared_ptr<LdmImages> images_;
  std::size_t at_;
  const LdmImage *view_;
};

/// An input image of a request in memory: an encoded file, or RGB pixels with their width and height.
struct Input {
  std::string key;
  std::vector<std::uint8_t> data;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};

/// An open pipeline.
class Pipeline {
 public:
  /// Opens a pipeline file or a model directory, with settings over it (a JSON object or empty).
  Pipeline(const Engine &engine, const std::string &path, const std::string &settings = "",
           const Observer &observer = nullptr, const Run *run = nullptr)
      : Pipeline(api().pipeline_open, engine, path, settings, observer, run) {}

  /// Opens the text of a pipeline file.
  static Pipeline from_toml(const Engine &engine, const std::string &toml, const std::string &settings = "",
                            const Observer &observer = nullptr, const Run *run = nullptr) {
    return Pipeline(api().pipeline_open_toml, engine, toml, settings, observer, run);
  }

  /// Makes the images of a request: a JSON object, or empty for what the pipeline's file describes.
  std::vector<Image> run(const std::string &request = "", const std::vector<Input> &inputs = {},
                         const Observer &observer = nullptr, const Run *run = nullptr) const {
    const std::vector<LdmInput> views = views_of(inputs);
    LdmImages *made = nullptr;
    observed(observer, run, [&](const LdmRun *run, LdmObserver call, void *user) {
      return api().pipeline_run(pipeline_.get(), detail::or_null(request), views.data(), views.size(), run, call, user,
                                &made);
    });
    const std::shared_ptr<LdmImages> images(made, api().images_release);
    std::vector<Image> all;
    for (std::size_t at = 0; at < api().images_count(made); ++at) all.emplace_back(images, at);
    return all;
  }

  /// Checks a request without running it.
  void check(const std::string &request, const std::vector<Input> &inputs = {}) const {
    const std::vector<LdmInput> views = views_of(inputs);
    detail::check(api().pipeline_check(pipeline_.get(), detail::or_null(request), views.data(), views.size()));
  }

  std::string runtime_version() const { return api().pipeline_runtime_version(pipeline_.get()); }
  const LdmPipeline *get() const noexcept { return pipeline_.get(); }

 private:
  using Open = LdmStatus *(*)(const LdmEngine *, const char *, const char *, const LdmRun *, LdmObserver, void *,
                              LdmPipeline **);

  Pipeline(Open open, const Engine &engine, const std::string &source, const std::string &settings,
           const Observer &observer, const Run *run)
      : pipeline_(nullptr, api().pipeline_release) {
    LdmPipeline *opened = nullptr;
    observed(observer, run, [&](const LdmRun *run, LdmObserver call, void *user) {
      return open(engine.get(), source.c_str(), detail::or_null(settings), run, call, user, &opened);
    });
    pipeline_.reset(opened);
  }

  struct Observed {
    const Observer &observer;
    const LdmRun *run;
    std::exception_ptr thrown;
  };

  static void notice(const LdmEvent *event, void *user) noexcept {
    Observed &observed = *static_cast<Observed *>(user);
    if (observed.thrown) return;
    try {
      observed.observer(*event);
    } catch (...) {
      observed.thrown = std::current_exception();
      api().run_cancel(observed.run);
    }
  }

  template <typename Call>
  static void observed(const Observer &observer, const Run *run, Call call) {
    if (!observer) return detail::check(call(run == nullptr ? nullptr : run->get(), nullptr, nullptr));
    // Without a run of the caller's, one of our own is what an exception cancels.
    const std::unique_ptr<Run> own(run == nullptr ? new Run() : nullptr);
    Observed state{observer, own ? own->get() : run->get(), nullptr};
    LdmStatus *const status = call(state.run, notice, &state);
    if (!state.thrown) return detail::check(status);
    if (status != nullptr) api().status_release(status);
    std::rethrow_exception(state.thrown);
  }

  static std::vector<LdmInput> views_of(const std::vector<Input> &inputs) {
    std::vector<LdmInput> views;
    for (const Input &input : inputs)
      views.push_back({input.key.c_str(), input.data.data(), input.data.size(), input.width, input.height});
    return views;
  }

  detail::Owned<LdmPipeline> pipeline_;
};

}  // namespace ldm_ort

#endif  // LDM_ORT_HPP
