// What the engine's tests share: where the fixtures are, and small models.
#ifndef KDN_TESTS_INTEGRATION_ENGINE_FIXTURES_H_
#define KDN_TESTS_INTEGRATION_ENGINE_FIXTURES_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "integration/engine/model.h"
#include "integration/engine/session.h"
#include "storage/format/chunk_key.h"

namespace kdn::engine {

inline std::string FixturePath(const std::string& name) { return std::string(KDN_ENGINE_FIXTURES) + "/" + name; }

// A random model from `spec`; ends the test program when the spec is wrong.
std::shared_ptr<const Model> SmallModel(
    const std::string& spec = "layers=2,hidden=64,heads=4,kv_heads=2,intermediate=96,vocab=260,seed=7");

std::unique_ptr<Session> NewSession(std::shared_ptr<const Model> model, const SessionOptions& options);

// `n` tokens of a vocabulary, the same every time.
std::vector<Token> SomeTokens(size_t n, uint32_t vocab = 256, uint32_t seed = 1);

// The cache's rows [0, tokens), all layers, K before V.
std::string KvBytes(const KvCache& kv, uint32_t tokens);

// Writes `directory`/`name` and gives its path.
std::string WriteFile(const std::filesystem::path& directory, const std::string& name, const std::string& bytes);

}  // namespace kdn::engine

#endif  // KDN_TESTS_INTEGRATION_ENGINE_FIXTURES_H_
