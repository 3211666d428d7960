#include "tests/integration/engine/fixtures.h"

#include <fmt/core.h>

#include <cstdlib>
#include <fstream>

#include "storage/base/status.h"

namespace kdn::engine {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    fmt::print(stderr, "test set-up: {}\n", MessageOf(value.status()));
    std::abort();
  }
  return *std::move(value);
}

}  // namespace

std::shared_ptr<const Model> SmallModel(const std::string& spec) {
  return OrDie(Model::Random(OrDie(ParseRandomModel(spec))));
}

std::unique_ptr<Session> NewSession(std::shared_ptr<const Model> model, const SessionOptions& options) {
  return OrDie(Session::Create(std::move(model), options));
}

std::vector<Token> SomeTokens(size_t n, uint32_t vocab, uint32_t seed) {
  std::vector<Token> tokens(n);
  uint32_t state = seed;
  for (Token& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = (state >> 8) % vocab;
  }
  return tokens;
}

std::string KvBytes(const KvCache& kv, uint32_t tokens) {
  std::string bytes;
  const size_t size = tokens * kv.RowBytes();
  for (uint32_t layer = 0; layer < kv.layers(); ++layer) {
    bytes.append(reinterpret_cast<const char*>(kv.k(layer)), size);
    bytes.append(reinterpret_cast<const char*>(kv.v(layer)), size);
  }
  return bytes;
}

std::string WriteFile(const std::filesystem::path& directory, const std::string& name, const std::string& bytes) {
  const std::string path = (directory / name).string();
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace kdn::engine
