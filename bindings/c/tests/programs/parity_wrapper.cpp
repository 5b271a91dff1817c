// usage: as parity.c, over the C++ interface.
#include <fstream>
#include <iterator>
#include <string>

#include "ldm_ort.hpp"

static void write_file(const std::string &path, const std::vector<std::uint8_t> &bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  std::vector<ldm_ort::Input> inputs;
  for (int at = 6; at < argc; ++at) {
    const std::string argument = argv[at];
    const std::size_t middle = argument.find('=');
    std::ifstream file(argument.substr(middle + 1), std::ios::binary);
    inputs.push_back({argument.substr(0, middle), {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()}});
  }
  const ldm_ort::Engine engine(R"({"graph_cache": false, "offline": true})");
  const ldm_ort::Pipeline pipeline(engine, argv[1]);
  for (const ldm_ort::Image &image : pipeline.run(argv[2], inputs)) {
    const std::string out = argv[5] + ("." + std::to_string(image.index()));
    write_file(out + ".file", image.encode(argv[3], std::stoi(argv[4])));
    write_file(out + ".rgb", {image.rgb(), image.rgb() + image.rgb_length()});
  }
}
