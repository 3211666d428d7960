#include "integration/engine/blend_pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/engine/kernels.h"
#include "integration/engine/space.h"
#include "storage/base/status.h"
#include "tests/integration/engine/fixtures.h"

namespace kdn::engine {
namespace {

using testing::HasSubstr;

std::vector<uint32_t> Range(uint32_t n) {
  std::vector<uint32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

std::vector<Token> At(std::span<const Token> tokens, std::span<const uint32_t> positions) {
  std::vector<Token> result;
  for (const uint32_t position : positions) result.push_back(tokens[position]);
  return result;
}

// Some of [0, n), the last one among them.
std::vector<uint32_t> SomePositions(uint32_t n, double share, std::mt19937& random) {
  std::vector<uint32_t> positions;
  for (uint32_t p = 0; p + 1 < n; ++p) {
    if (std::uniform_real_distribution<>(0, 1)(random) < share) positions.push_back(p);
  }
  positions.push_back(n - 1);
  return positions;
}

// A session with a blend pass over it, which does what the Blender does with the keys and values.
class Engine {
 public:
  explicit Engine(std::shared_ptr<const Model> model, SessionOptions options = {})
      : session_(NewSession(std::move(model), options)) {
    absl::StatusOr<std::unique_ptr<BlendPass>> pass = BlendPass::Create(*session_);
    EXPECT_TRUE(pass.ok()) << pass.status();
    pass_ = *std::move(pass);
  }

  Session& session() { return *session_; }
  BlendPass& pass() { return *pass_; }
  KvCache& kv() { return session_->kv(); }

  void Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) {
    const absl::Status status = pass_->Begin(At(tokens, positions), positions);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Project(uint32_t layer) {
    const size_t size = pass_->positions().size() * width();
    k_.resize(size);
    v_.resize(size);
    const absl::Status status = pass_->Project(layer, k_, v_);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Keep(std::span<const uint32_t> kept) {
    ASSERT_TRUE(pass_->Keep(kept).ok());
    for (size_t row = 0; row < kept.size(); ++row) {
      std::copy_n(k_.begin() + static_cast<ptrdiff_t>(kept[row] * width()), width(),
                  k_.begin() + static_cast<ptrdiff_t>(row * width()));
      std::copy_n(v_.begin() + static_cast<ptrdiff_t>(kept[row] * width()), width(),
                  v_.begin() + static_cast<ptrdiff_t>(row * width()));
    }
  }

  void Finish(uint32_t layer) {
    const std::span<const uint32_t> positions = pass_->positions();
    for (size_t row = 0; row < positions.size(); ++row) {
      const size_t at = positions[row] * kv().RowBytes();
      FromFloats(kv().dtype(), {k_.data() + row * width(), width()}, kv().k(layer) + at);
      FromFloats(kv().dtype(), {v_.data() + row * width(), width()}, kv().v(layer) + at);
    }
    const absl::Status status = pass_->Finish(layer);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Layers(uint32_t first, uint32_t end) {
    for (uint32_t layer = first; layer < end; ++layer) {
      Project(layer);
      Finish(layer);
    }
  }
  void Run(std::span<const Token> tokens, std::span<const uint32_t> positions) {
    Begin(tokens, positions);
    Layers(0, kv().layers());
  }

  std::vector<float> Logits(std::span<const uint32_t> positions) {
    absl::StatusOr<std::vector<float>> logits = pass_->Logits(positions);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *std::move(logits) : std::vector<float>();
  }
  std::vector<float> Logits() { return Logits(pass_->positions()); }

  // The key (or value) of a position in every layer becomes `value`.
  void Overwrite(uint32_t position, float value) {
    const std::vector<float> row(width(), value);
    for (uint32_t layer = 0; layer < kv().layers(); ++layer) {
      FromFloats(kv().dtype(), row, kv().k(layer) + position * kv().RowBytes());
      FromFloats(kv().dtype(), row, kv().v(layer) + position * kv().RowBytes());
    }
  }

 private:
  size_t width() const { return session_->model().config().KvWidth(); }

  std::unique_ptr<Session> session_;
  std::unique_ptr<BlendPass> pass_;
  std::vector<float> k_;
  std::vector<float> v_;
};

std::string BitsOf(std::span<const float> values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

// The largest difference, as a share of the largest value.
double Deviation(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    largest = std::max(largest, std::abs(double{b[i]}));
  }
  return most / largest;
}

// The rows of `all`, [tokens, vocab], at these positions.
std::vector<float> RowsOf(std::span<const float> all, size_t vocab, std::span<const uint32_t> positions) {
  std::vector<float> rows;
  for (const uint32_t p : positions) {
    const std::span<const float> row = all.subspan(p * vocab, vocab);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

SessionOptions F32(uint32_t capacity) { return {.kv_dtype = DType::kF32, .chunk_tokens = 64, .capacity = capacity}; }

class ShapeTest : public testing::TestWithParam<std::string> {
 protected:
  const std::shared_ptr<const Model> model_ = SmallModel(GetParam());
  std::mt19937 random_{17};
};

TEST_P(ShapeTest, AllRowsGiveTheSessionsLogits) {
  for (const uint32_t n : {1u, 2u, 130u, 333u}) {
    const std::vector<Token> tokens = SomeTokens(n, 256, n);
    const auto session = NewSession(model_, F32(n));
    std::vector<float> want;
    ASSERT_TRUE(session->Append(tokens, &want).ok());
    Engine engine(model_, F32(n));
    engine.Run(tokens, Range(n));
    EXPECT_LE(Deviation(engine.Logits(), want), 1e-5) << n << " tokens";
    EXPECT_EQ(engine.kv().length(), n);
  }
}

TEST_P(ShapeTest, SomeRowsOverTheOthersKvGiveTheSessionsLogits) {
  constexpr uint32_t kTokens = 700;
  const std::vector<Token> tokens = SomeTokens(kTokens);
  Engine engine(model_, F32(kTokens));
  std::vector<float> all;
  ASSERT_TRUE(engine.session().Append(tokens, &all).ok());
  for (const double share : {0.0, 0.02, 0.15, 0.8}) {
    const std::vector<uint32_t> positions = SomePositions(kTokens, share, random_);
    for (const uint32_t position : positions) engine.Overwrite(position, 7.0f);  // it must come from the pass
    engine.Run(tokens, positions);
    EXPECT_LE(Deviation(engine.Logits(), RowsOf(all, model_->config().vocab_size, positions)), 1e-5) << share;
    EXPECT_EQ(engine.kv().length(), kTokens);
  }
}

TEST_P(ShapeTest, RowsThatFallOutLeaveTheOthersAsTheyWere) {
  constexpr uint32_t kTokens = 300;
  const uint32_t layers = model_->config().layers;
  const std::vector<Token> tokens = SomeTokens(kTokens);
  Engine engine(model_, F32(kTokens));
  std::vector<float> all;
  ASSERT_TRUE(engine.session().Append(tokens, &all).ok());
  engine.Begin(tokens, Range(kTokens));
  std::vector<uint32_t> left = Range(kTokens);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    engine.Project(layer);
    const std::vector<uint32_t> kept = SomePositions(static_cast<uint32_t>(left.size()), 0.4, random_);
    std::vector<uint32_t> next;
    for (const uint32_t row : kept) next.push_back(left[row]);
    left = next;
    engine.Keep(kept);
    engine.Finish(layer);
    ASSERT_TRUE(std::ranges::equal(engine.pass().positions(), left));
  }
  ASSERT_LT(left.size(), kTokens / 4);
  EXPECT_LE(Deviation(engine.Logits(), RowsOf(all, model_->config().vocab_size, left)), 1e-5);
}

TEST_P(ShapeTest, SpaceIsTheSessionsAndAValidOne) {
  Engine engine(model_, F32(8));
  EXPECT_EQ(engine.pass().space(), SpaceOf(*model_, F32(8)));
  EXPECT_EQ(LayerCount(engine.pass().space()), model_->config().layers);
  const absl::StatusOr<SpaceId> id = ComputeSpaceId(engine.pass().space());
  EXPECT_TRUE(id.ok()) << id.status();
}

constexpr const char* kSmall = "layers=3,hidden=32,heads=4,kv_heads=2,intermediate=48,vocab=260,seed=5";

INSTANTIATE_TEST_SUITE_P(
    Models, ShapeTest,
    testing::Values(
        std::string(kSmall),
        "layers=2,hidden=48,heads=3,kv_heads=3,head_dim=10,intermediate=40,vocab=261,tied=1,seed=2",
        "layers=2,hidden=64,heads=8,kv_heads=1,intermediate=32,vocab=256,rope_factor=4,seed=3",
        "layers=3,hidden=40,heads=2,kv_heads=1,head_dim=64,intermediate=24,vocab=300,rope=ntk,rope_factor=8,seed=4",
        "family=qwen2,layers=3,hidden=32,heads=6,kv_heads=2,head_dim=16,intermediate=48,vocab=256,rope=yarn,"
        "rope_original=64,rope_factor=8",
        "family=qwen3,layers=3,hidden=48,heads=4,kv_heads=4,head_dim=24,intermediate=48,vocab=256,rope=llama3,"
        "rope_original=128,seed=6",
        "family=qwen3,layers=4,hidden=32,heads=4,kv_heads=2,intermediate=48,vocab=256,rotary=0.5,nope_every=2",
        "family=qwen2,layers=2,hidden=32,heads=4,kv_heads=2,intermediate=48,vocab=256,rope_pairs=interleaved,"
        "rotary=0.75"),
    [](const auto& test) { return fmt::format("Shape{}", test.index); });

// Blocks of rows, tiles of rows and blocks of keys all end at different places.
TEST(BlendPassTest, MoreRowsThanABlockGiveTheSessionsLogits) {
  constexpr uint32_t kTokens = BlendPass::kBlockRows + 301;
  const auto model = SmallModel("layers=2,hidden=16,heads=2,kv_heads=1,intermediate=16,vocab=256");
  const std::vector<Token> tokens = SomeTokens(kTokens);
  const auto session = NewSession(model, F32(kTokens));
  std::vector<float> want;
  ASSERT_TRUE(session->Append(tokens, &want).ok());
  Engine engine(model, F32(kTokens));
  engine.Run(tokens, Range(kTokens));
  EXPECT_LE(Deviation(engine.Logits(), want), 1e-5);
}

// The mask: nothing of a later position reaches an earlier row, whatever it is. An engine whose mask is aligned to the
// last rows, or that masks by products with zero, lets some of these through.
TEST(BlendPassTest, KvOfALaterPositionNeverChangesAnEarlierRow) {
  constexpr uint32_t kTokens = 600;
  const auto model = SmallModel(kSmall);
  const uint32_t vocab = model->config().vocab_size;
  const std::vector<Token> tokens = SomeTokens(kTokens);
  // Runs of rows, single ones, and gaps within a tile and beyond.
  std::vector<uint32_t> positions = {0, 3, 4, 5, 100, 255, 256, 258, 300, 301, 599};
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    Engine engine(model, {.kv_dtype = dtype, .chunk_tokens = 64, .capacity = kTokens});
    ASSERT_TRUE(engine.session().Append(tokens).ok());
    engine.Run(tokens, positions);
    const std::vector<float> before = engine.Logits();
    for (const uint32_t changed : {1u, 6u, 99u, 257u, 302u, 598u}) {
      for (const float value : {3.0f, 1e30f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
        Engine other(model, {.kv_dtype = dtype, .chunk_tokens = 64, .capacity = kTokens});
        ASSERT_TRUE(other.session().Append(tokens).ok());
        other.Overwrite(changed, value);
        other.Run(tokens, positions);
        const std::vector<float> after = other.Logits();
        const size_t earlier = static_cast<size_t>(std::ranges::lower_bound(positions, changed) - positions.begin());
        EXPECT_EQ(BitsOf({after.data(), earlier * vocab}), BitsOf({before.data(), earlier * vocab}))
            << "position " << changed << " became " << value;
        EXPECT_NE(BitsOf({after.data() + earlier * vocab, vocab}), BitsOf({before.data() + earlier * vocab, vocab}))
            << "the next row sees position " << changed;
      }
    }
  }
}

TEST(BlendPassTest, ATokenOfTheSamePassNeverChangesAnEarlierRow) {
  constexpr uint32_t kTokens = 400;
  const auto model = SmallModel(kSmall);
  const uint32_t vocab = model->config().vocab_size;
  std::vector<Token> tokens = SomeTokens(kTokens);
  std::mt19937 random(3);
  Engine engine(model, F32(kTokens));
  ASSERT_TRUE(engine.session().Append(tokens).ok());
  const std::vector<uint32_t> positions = SomePositions(kTokens, 0.3, random);
  engine.Run(tokens, positions);
  const std::vector<float> before = engine.Logits();
  for (const size_t row : {size_t{1}, positions.size() / 2, positions.size() - 1}) {
    tokens[positions[row]] ^= 1;
    engine.Run(tokens, positions);
    tokens[positions[row]] ^= 1;
    const std::vector<float> after = engine.Logits();
    EXPECT_EQ(BitsOf({after.data(), row * vocab}), BitsOf({before.data(), row * vocab})) << "row " << row;
    EXPECT_NE(BitsOf({after.data() + row * vocab, vocab}), BitsOf({before.data() + row * vocab, vocab}))
        << "row " << row;
  }
}

TEST(BlendPassTest, RewindGivesTheSameBitsAnyNumberOfTimes) {
  constexpr uint32_t kTokens = 200;
  const auto model = SmallModel(kSmall);
  const std::vector<Token> tokens = SomeTokens(kTokens);
  Engine engine(model, F32(kTokens));
  engine.Run(tokens, Range(kTokens));
  const std::string plain = BitsOf(engine.Logits());

  engine.Begin(tokens, Range(kTokens));
  engine.Layers(0, 1);
  engine.pass().Mark();
  for (const uint32_t kept : {1u, 50u, 199u}) {
    engine.Project(1);
    engine.Keep(Range(kept));
    engine.Finish(1);
    if (kept == 50) engine.Layers(2, 3);  // from after the last layer, too
    if (kept == 199) engine.Project(2);   // and from within one
    ASSERT_TRUE(engine.pass().Rewind().ok());
    EXPECT_EQ(engine.pass().positions().size(), kTokens);
  }
  engine.Layers(1, 3);
  EXPECT_EQ(BitsOf(engine.Logits()), plain);
  // A pass that is through can go back as well.
  ASSERT_TRUE(engine.pass().Rewind().ok());
  engine.Layers(1, 3);
  EXPECT_EQ(BitsOf(engine.Logits()), plain);
}

TEST(BlendPassTest, MarkingAgainForgetsTheMarkBefore) {
  constexpr uint32_t kTokens = 50;
  const auto model = SmallModel(kSmall);
  const std::vector<Token> tokens = SomeTokens(kTokens);
  Engine engine(model, F32(kTokens));
  engine.Begin(tokens, Range(kTokens));
  engine.pass().Mark();
  engine.Project(0);
  engine.Keep(std::vector<uint32_t>{3, 49});
  engine.Finish(0);
  engine.pass().Mark();
  engine.Layers(1, 2);
  ASSERT_TRUE(engine.pass().Rewind().ok());
  EXPECT_EQ(engine.pass().positions().size(), 2u);
  EXPECT_EQ(engine.pass().Project(0, {}, {}).code(), absl::StatusCode::kFailedPrecondition);
  engine.Layers(1, 3);
}

TEST(BlendPassTest, NumberOfThreadsChangesNotABit) {
  constexpr uint32_t kTokens = 500;
  const auto model = SmallModel("layers=2,hidden=320,heads=5,kv_heads=5,vocab=600,seed=2");
  const std::vector<Token> tokens = SomeTokens(kTokens);
  std::string one;
  for (const uint32_t threads : {1u, 2u, 5u}) {
    Engine engine(model, {.capacity = kTokens, .threads = threads});
    ASSERT_TRUE(engine.session().Append(tokens).ok());
    engine.Begin(tokens, Range(kTokens));
    engine.Layers(0, 1);
    engine.Project(1);
    std::mt19937 random(1);
    engine.Keep(SomePositions(kTokens, 0.2, random));
    engine.Finish(1);
    const std::string bits = BitsOf(engine.Logits()) + KvBytes(engine.kv(), kTokens);
    if (threads == 1) one = bits;
    EXPECT_EQ(bits, one) << threads;
  }
}

TEST(BlendPassTest, TheSessionDecodesBehindThePrompt) {
  constexpr uint32_t kTokens = 150;
  const auto model = SmallModel(kSmall);
  const std::vector<Token> tokens = SomeTokens(kTokens);
  const auto session = NewSession(model, F32(kTokens + 8));
  ASSERT_TRUE(session->Append(tokens).ok());
  Engine engine(model, F32(kTokens + 8));
  ASSERT_TRUE(engine.session().Append(SomeTokens(158, 256, 9)).ok());  // another prompt, of before
  engine.Run(tokens, Range(kTokens));
  EXPECT_EQ(BitsOf(engine.session().logits()), BitsOf(engine.Logits(std::vector<uint32_t>{kTokens - 1})));
  for (int step = 0; step < 8; ++step) {
    EXPECT_LE(Deviation(engine.session().logits(), session->logits()), 1e-5) << step;
    const Token next = session->Greedy();
    ASSERT_TRUE(session->Append({next}).ok());
    ASSERT_TRUE(engine.session().Append({next}).ok());
  }
}

TEST(BlendPassTest, NumbersThatAreNoneComeOutAsSuch) {
  constexpr uint32_t kTokens = 300;
  const auto model = SmallModel(kSmall);
  const std::vector<Token> tokens = SomeTokens(kTokens);
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Engine engine(model, F32(kTokens));
    ASSERT_TRUE(engine.session().Append(tokens).ok());
    engine.Overwrite(20, value);
    engine.Run(tokens, std::vector<uint32_t>{10, 25, 299});
    const std::vector<float> logits = engine.Logits();
    const uint32_t vocab = model->config().vocab_size;
    EXPECT_TRUE(std::isfinite(logits[0]));
    EXPECT_TRUE(std::isnan(logits[vocab])) << "never a wrong answer in silence";
    EXPECT_TRUE(std::isnan(logits[2 * vocab]));
  }
}

TEST(BlendPassTest, RefusesRowsThatItCannotRun) {
  const auto model = SmallModel(kSmall);
  Engine engine(model, F32(8));
  const auto error = [&](std::vector<Token> tokens, std::vector<uint32_t> positions) {
    return MessageOf(engine.pass().Begin(tokens, positions));
  };
  EXPECT_THAT(error({}, {}), HasSubstr("no tokens"));
  EXPECT_THAT(error({1, 2}, {0}), HasSubstr("2 tokens at 1 positions"));
  EXPECT_THAT(error({1, 260}, {0, 1}), HasSubstr("token 1 is 260; the vocabulary has 260"));
  EXPECT_THAT(error({1, 2}, {4, 4}), HasSubstr("position 1 is 4, after 4"));
  EXPECT_THAT(error({1, 2}, {4, 3}), HasSubstr("position 1 is 3, after 4"));
  EXPECT_THAT(error({1, 2}, {4, 8}), HasSubstr("position 1 is 8; the KV cache has room for 8"));
  EXPECT_THAT(error({1}, {4294967295u}), HasSubstr("position 0 is 4294967295"));

  const auto loaded = Model::Load(FixturePath("gqa_f32"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  Engine limited(*loaded, F32(4096));
  EXPECT_EQ(limited.pass().max_positions(), 4096u);
  EXPECT_THAT(MessageOf(limited.pass().Begin(std::vector<Token>{1}, std::vector<uint32_t>{4096})),
              HasSubstr("max_position_embeddings is 4096"));
}

TEST(BlendPassTest, RefusesCallsOutOfTurn) {
  const auto model = SmallModel(kSmall);
  const size_t width = model->config().KvWidth();
  const std::vector<Token> tokens = SomeTokens(5);
  Engine engine(model, F32(8));
  BlendPass& pass = engine.pass();
  std::vector<float> k(5 * width);
  std::vector<float> v(5 * width);
  const std::vector<uint32_t> one = {0};
  EXPECT_THAT(MessageOf(pass.Project(0, k, v)), HasSubstr("Project of layer 0 before Begin"));
  EXPECT_THAT(MessageOf(pass.Finish(0)), HasSubstr("before Begin"));
  EXPECT_THAT(MessageOf(pass.Keep(one)), HasSubstr("not between Project and Finish"));
  EXPECT_THAT(MessageOf(pass.Rewind()), HasSubstr("without a Mark"));
  EXPECT_THAT(MessageOf(pass.Logits(one).status()), HasSubstr("before the last layer"));

  engine.Begin(tokens, Range(5));
  EXPECT_THAT(MessageOf(pass.Project(1, k, v)), HasSubstr("Project of layer 1, but Project of layer 0 is next"));
  EXPECT_THAT(MessageOf(pass.Finish(0)), HasSubstr("Finish of layer 0, but Project of layer 0 is next"));
  EXPECT_THAT(MessageOf(pass.Keep(one)), HasSubstr("not between"));
  EXPECT_THAT(MessageOf(pass.Project(0, k, std::span(v).first(4 * width))), HasSubstr("5 rows have"));
  engine.Project(0);
  EXPECT_THAT(MessageOf(pass.Project(0, k, v)), HasSubstr("but Finish of layer 0 is next"));
  EXPECT_THAT(MessageOf(pass.Finish(1)), HasSubstr("but Finish of layer 0 is next"));
  EXPECT_THAT(MessageOf(pass.Keep({})), HasSubstr("no rows"));
  EXPECT_THAT(MessageOf(pass.Keep(std::vector<uint32_t>{1, 1})), HasSubstr("entry 1 is 1"));
  EXPECT_THAT(MessageOf(pass.Keep(std::vector<uint32_t>{2, 1})), HasSubstr("entry 1 is 1"));
  EXPECT_THAT(MessageOf(pass.Keep(std::vector<uint32_t>{0, 5})), HasSubstr("entry 1 is 5"));
  pass.Mark();
  EXPECT_THAT(MessageOf(pass.Rewind()), HasSubstr("without a Mark before Project"));
  engine.Finish(0);
  engine.Layers(1, 3);
  EXPECT_THAT(MessageOf(pass.Project(3, k, v)), HasSubstr("all 3 layers are done"));
  EXPECT_THAT(MessageOf(pass.Logits(std::vector<uint32_t>{5}).status()), HasSubstr("position 5"));
  engine.pass().Mark();
  EXPECT_FALSE(pass.Rewind().ok());

  // After all that, the pass still gives what a new one gives.
  engine.Run(tokens, Range(5));
  Engine fresh(model, F32(8));
  fresh.Run(tokens, Range(5));
  EXPECT_EQ(BitsOf(engine.Logits()), BitsOf(fresh.Logits()));
}

}  // namespace
}  // namespace kdn::engine
