// usage: wrapper PIPELINE IMAGE.png: the C++ interface.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "checks.h"
#include "ldm_ort.hpp"

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  ldm = &ldm_ort::api();
  const ldm_ort::Engine engine(R"({"graph_cache": false, "offline": true})");
  ldm_ort::Pipeline pipeline(engine, argv[1]);
  int steps = 0;
  const std::vector<ldm_ort::Image> images =
      pipeline.run("", {}, [&](const LdmEvent &event) { steps += event.kind == LDM_EVENT_STEP; });
  EXPECT(steps == 3 && images.size() == 1 && images[0].width() == 64 && images[0].seed() == 4);
  EXPECT(images[0].record().find("\"seed\":4") != std::string::npos);
  images[0].save(argv[2]);
  try {
    images[0].save("/nowhere/at/all.png");
    EXPECT(false);
  } catch (const ldm_ort::Error &error) {
    EXPECT(error.kind() == LDM_IO);
  }

  const ldm_ort::Input input{"image", std::vector<std::uint8_t>(images[0].rgb(), images[0].rgb() + images[0].rgb_length()),
                             64, 64};
  const auto redrawn = pipeline.run(R"({"prompt": "a dog", "strength": 0.6})", {input});
  EXPECT(redrawn.at(0).record().find("image-to-image") != std::string::npos);

  try {
    pipeline.check(R"({"sede": 1})");
    EXPECT(false);
  } catch (const ldm_ort::Error &error) {
    EXPECT(error.kind() == LDM_INVALID_REQUEST && std::string(error.what()).find("sede") != std::string::npos);
  }
  // What a callback throws ends the run and comes out.
  try {
    pipeline.run(R"({"steps": 999})", {}, [](const LdmEvent &event) {
      if (event.kind == LDM_EVENT_STEP) throw std::logic_error("enough");
    });
    EXPECT(false);
  } catch (const std::logic_error &error) {
    EXPECT(std::string(error.what()) == "enough");
  }
  const ldm_ort::Run run;
  run.cancel();
  try {
    pipeline.run("", {}, nullptr, &run);
    EXPECT(false);
  } catch (const ldm_ort::Error &error) {
    EXPECT(error.kind() == LDM_CANCELLED);
  }
  ldm_ort::Pipeline moved = std::move(pipeline);
  EXPECT(moved.run().at(0).encode("webp").size() > 100);
  std::ifstream file(argv[1]);
  const std::string toml((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const ldm_ort::Pipeline of_text = ldm_ort::Pipeline::from_toml(engine, toml, R"({"threads": 1})");
  const ldm_ort::Image again = of_text.run().at(0);
  EXPECT(std::equal(again.rgb(), again.rgb() + again.rgb_length(), images[0].rgb()));
  return 0;
}
