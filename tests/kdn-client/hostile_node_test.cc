// A node that is away, dies, hangs or lies costs the engine a miss with a reason, within the deadline, and nothing
// else.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/client.h"
#include "kdn/v1/node.grpc.pb.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPlenty = absl::Seconds(20);
constexpr uint32_t kTokens = 3 * kChunkTokens;

// What a call does, exchanged from another thread than the one that runs it.
template <typename... Args>
class Script {
 public:
  using Function = std::function<grpc::Status(Args...)>;

  Script& operator=(Function function) {
    MutexLock lock(mu_);
    function_ = std::make_shared<const Function>(std::move(function));
    return *this;
  }
  grpc::Status Run(Args... args) {
    std::shared_ptr<const Function> function;
    {
      MutexLock lock(mu_);
      function = function_;
    }
    return function ? (*function)(args...) : grpc::Status(grpc::UNIMPLEMENTED, "no script");
  }

 private:
  Mutex mu_;
  std::shared_ptr<const Function> function_ ABSL_GUARDED_BY(mu_);
};

// Answers as the test says. What the test does not say is UNIMPLEMENTED.
class ScriptedNode final : public v1::NodeService::Service {
 public:
  using FetchWriter = grpc::ServerWriter<v1::FetchFrame>;

  // On a port that the system chooses, or on the one given.
  explicit ScriptedNode(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxSendMessageSize(-1);
    const std::string address = "127.0.0.1:" + std::to_string(port);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedNode() override {
    Die();
    if (killer_.joinable()) killer_.join();
  }

  int port() const { return port_; }
  bool listens() const { return server_ != nullptr; }
  // Closes all connections at once.
  void Die() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }
  // The same from within a call, which cannot wait for itself.
  void DieFromWithin() {
    killer_ = std::thread([this] { Die(); });
  }
  std::shared_ptr<Transport> Connect() const { return MakeRemoteTransport("127.0.0.1:" + std::to_string(port_)); }

  // What is set for the next calls; those under way go on with what they began with.
  Script<grpc::ServerContext&, FetchWriter&> fetch;
  Script<v1::LookupResponse&> lookup;
  Script<grpc::ServerReader<v1::StoreFrame>&, v1::StoreResponse&> store;

 private:
  grpc::Status Fetch(grpc::ServerContext* context, const v1::FetchRequest*, FetchWriter* writer) override {
    return fetch.Run(*context, *writer);
  }
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest*, v1::LookupResponse* response) override {
    return lookup.Run(*response);
  }
  grpc::Status Store(grpc::ServerContext*, grpc::ServerReader<v1::StoreFrame>* reader,
                     v1::StoreResponse* response) override {
    return store.Run(*reader, *response);
  }

  int port_ = 0;
  std::thread killer_;
  std::unique_ptr<grpc::Server> server_;
};

// Blocks until the peer gives up or the server stops.
void WaitForCancellation(const grpc::ServerContext& context) {
  while (!context.IsCancelled()) std::this_thread::yield();
}

class HostileNodeTest : public testing::Test {
 protected:
  using FetchWriter = ScriptedNode::FetchWriter;

  void SetUp() override {
    const KvView view = KvView::Over(space_, computed_.view(), {}).value();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(client_->space_id(), space_, ref, view, **FindCodec("zstd")).value());
    }
  }

  v1::FetchFrame ResultFrame(uint32_t chunk) const {
    v1::FetchFrame frame;
    frame.set_chunk(chunk);
    frame.mutable_result()->set_tier(v1::TIER_MEMORY);
    frame.mutable_result()->set_manifest(EncodeManifest(*chunks_[chunk].manifest).value());
    return frame;
  }
  static v1::FetchFrame MissFrame(uint32_t chunk, int reason) {
    v1::FetchFrame frame;
    frame.set_chunk(chunk);
    frame.mutable_result()->set_miss(static_cast<v1::MissReason>(reason));
    frame.mutable_result()->set_detail(std::string(10000, 'x'));
    return frame;
  }
  v1::FetchFrame DataFrame(uint32_t chunk, uint32_t slab) const {
    v1::FetchFrame frame;
    frame.set_chunk(chunk);
    frame.set_slab(slab);
    frame.set_data(std::string(AsStringView(chunks_[chunk].slabs[slab])));
    return frame;
  }
  // All of a chunk.
  v1::FetchFrame JoinedFrame(uint32_t chunk) const {
    v1::FetchFrame frame = ResultFrame(chunk);
    for (const SharedBuffer& slab : chunks_[chunk].slabs) frame.mutable_data()->append(AsStringView(slab));
    return frame;
  }
  void SendChunk(FetchWriter& writer, uint32_t chunk) const {
    writer.Write(ResultFrame(chunk));
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) writer.Write(DataFrame(chunk, slab));
  }

  // Fetches all three chunks and checks that what is a hit has its bytes.
  FetchReport Fetch(absl::Duration deadline = kPlenty) {
    EngineMemory fetched(space_, kTokens);
    FetchOptions options;
    options.deadline = deadline;
    const absl::StatusOr<FetchReport> report = client_->Fetch(refs_, fetched.view(), options);
    EXPECT_TRUE(report.ok()) << report.status();
    for (size_t i = 0; i < refs_.size(); ++i) {
      if (report->chunks[i].miss.reason != MissReason::kNone) continue;
      for (size_t layer = 0; layer < 4; ++layer) {
        EXPECT_EQ(fetched.Rows(layer, refs_[i].first_token, kChunkTokens),
                  computed_.Rows(layer, refs_[i].first_token, kChunkTokens));
      }
    }
    return *report;
  }

  const KvSpace space_ = TinySpace();
  const std::vector<ChunkRef> refs_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  ScriptedNode node_;
  const std::unique_ptr<Client> client_ = Client::Create(space_, node_.Connect()).value();
  std::vector<Chunk> chunks_;
};

TEST_F(HostileNodeTest, AWellBehavedScriptIsAHit) {
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    for (const uint32_t chunk : {2u, 0u, 1u}) SendChunk(writer, chunk);
    return grpc::Status::OK;
  };
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
}

TEST_F(HostileNodeTest, OtherHeadsThanWereAskedForAreRefused) {
  // Chunks as of an engine with other heads; the memory here holds the first of two.
  KvSpace half = space_;
  half.layers[0].kv_heads = 1;
  for (const uint32_t heads : {1u, 2u, 3u}) {
    SCOPED_TRACE(heads);
    KvSpace sent = space_;
    sent.layers[0].kv_heads = heads;
    const EngineMemory source = EngineMemory::WithKv(sent, kTokens);
    const KvView view = KvView::Over(sent, source.view(), {}).value();
    chunks_.clear();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(client_->space_id(), sent, ref, view, **FindCodec("raw")).value());
    }
    node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
      for (const uint32_t chunk : {0u, 1u, 2u}) SendChunk(writer, chunk);
      return grpc::Status::OK;
    };
    EngineMemory fetched(half, kTokens);
    ContiguousKv first_head = fetched.view();
    first_head.heads = {.begin = 0, .end = 1};
    const FetchReport report = client_->Fetch(refs_, first_head, {.deadline = kPlenty}).value();
    EXPECT_THAT(Reasons(report), Each(heads == 3 ? MissReason::kGeometry : MissReason::kNone));
    EXPECT_EQ(fetched.IsZero(0, 0, kTokens), heads == 3);
    // Who holds all heads takes no fewer.
    EngineMemory all(space_, kTokens);
    const FetchReport whole = client_->Fetch(refs_, all.view(), {.deadline = kPlenty}).value();
    EXPECT_THAT(Reasons(whole), Each(heads == 2 ? MissReason::kNone : MissReason::kGeometry));
  }
}

TEST_F(HostileNodeTest, WhatWasVerifiedBeforeTheNodeDiedStaysAHit) {
  node_.fetch = [=, this](grpc::ServerContext& context, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(ResultFrame(1));
    writer.Write(DataFrame(1, 0));
    node_.DieFromWithin();
    WaitForCancellation(context);
    return grpc::Status::OK;
  };
  const FetchReport report = Fetch();
  EXPECT_EQ(report.ready, 1u);
  for (const size_t chunk : {1u, 2u}) {
    // Which of the two the client sees depends on whether the call's end or the connection's arrives first.
    EXPECT_THAT(report.chunks[chunk].miss.reason, testing::AnyOf(MissReason::kUnreachable, MissReason::kCancelled));
  }
}

TEST_F(HostileNodeTest, AStreamThatFailsMidwayGivesItsReasonToTheRest) {
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(ResultFrame(1));
    return grpc::Status(grpc::RESOURCE_EXHAUSTED, "too much at once");
  };
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kRefused, MissReason::kRefused));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("node 127.0.0.1:"));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("too much at once"));
}

TEST_F(HostileNodeTest, ANodeThatHangsCostsNoMoreThanTheDeadline) {
  node_.fetch = [=, this](grpc::ServerContext& context, FetchWriter& writer) {
    SendChunk(writer, 0);
    WaitForCancellation(context);
    return grpc::Status::OK;
  };
  const FetchReport report = Fetch(absl::Milliseconds(300));
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kDeadline, MissReason::kDeadline));
  EXPECT_LT(report.elapsed, absl::Seconds(10));
}

TEST_F(HostileNodeTest, AStreamThatEndsEarlyAndSaysAllIsWellIsABreach) {
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(ResultFrame(1));
    writer.Write(DataFrame(1, 0));
    return grpc::Status::OK;
  };
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kProtocol, MissReason::kProtocol));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("before the chunk was whole"));
  EXPECT_THAT(report.chunks[2].miss.detail, HasSubstr("without an answer"));
}

TEST_F(HostileNodeTest, FramesMayBeJoinedOrNot) {
  const std::string whole = JoinedFrame(1).data();
  for (const size_t part : {size_t{100}, size_t{1000}, whole.size() - 1, whole.size()}) {
    node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
      SendChunk(writer, 0);
      v1::FetchFrame frame = ResultFrame(1);
      frame.set_data(whole.substr(0, part));
      writer.Write(frame);
      frame.clear_result();
      size_t slab = 0;
      size_t slab_begin = 0;
      for (size_t at = part; at < whole.size(); at += part) {
        while (at >= slab_begin + chunks_[1].slabs[slab].size()) slab_begin += chunks_[1].slabs[slab++].size();
        frame.set_slab(static_cast<uint32_t>(slab));
        frame.set_offset(at - slab_begin);
        frame.set_data(whole.substr(at, part));
        writer.Write(frame);
      }
      writer.Write(JoinedFrame(2));
      return grpc::Status::OK;
    };
    EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << part;
  }
}

TEST_F(HostileNodeTest, DataBehindTheLastSlabCondemnTheStreamAndNotTheChunk) {
  v1::FetchFrame too_long = JoinedFrame(1);
  too_long.mutable_data()->push_back('x');
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    while (writer.Write(too_long)) {
    }
    return grpc::Status::OK;
  };
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kNone, MissReason::kProtocol));
}

TEST_F(HostileNodeTest, FramesThatMakeNoSenseEndTheCallAndNotTheHits) {
  v1::FetchFrame beyond = ResultFrame(0);
  beyond.set_chunk(3);
  v1::FetchFrame no_such_slab = ResultFrame(1);
  no_such_slab.set_slab(1000);
  no_such_slab.set_data("x");
  v1::FetchFrame behind_the_slab = ResultFrame(1);
  behind_the_slab.set_offset(chunks_[1].slabs[0].size());
  behind_the_slab.set_data("x");
  v1::FetchFrame oversized = DataFrame(1, 0);
  oversized.set_data(std::string(5 << 20, 'x'));
  struct Case {
    const char* what;
    v1::FetchFrame frame;
    MissReason reason;
  };
  const std::vector<Case> cases = {
      {"a chunk that was not asked for", beyond, MissReason::kProtocol},
      {"data before the result", DataFrame(1, 0), MissReason::kProtocol},
      {"a slab that the chunk does not have", no_such_slab, MissReason::kProtocol},
      {"an offset behind the slab", behind_the_slab, MissReason::kProtocol},
      {"a frame over the limit", oversized, MissReason::kRefused},  // gRPC's own verdict
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    node_.fetch = [this, frame = c.frame](grpc::ServerContext&, FetchWriter& writer) {
      SendChunk(writer, 0);
      while (writer.Write(frame)) {
      }  // until the client hangs up, which it must by itself
      return grpc::Status::OK;
    };
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, c.reason, c.reason));
    EXPECT_LT(report.elapsed, kPlenty / 4);
  }
}

TEST_F(HostileNodeTest, ManifestsThatLieAreMissesOfTheirChunkAlone) {
  v1::FetchFrame torn = ResultFrame(1);
  torn.mutable_result()->mutable_manifest()->pop_back();
  v1::FetchFrame empty = ResultFrame(1);
  empty.mutable_result()->clear_manifest();
  v1::FetchFrame another = ResultFrame(2);
  another.set_chunk(1);
  const std::vector<std::pair<v1::FetchFrame, MissReason>> cases = {
      {torn, MissReason::kCorrupt},
      {empty, MissReason::kCorrupt},
      {another, MissReason::kProtocol},
      {MissFrame(1, 3), MissReason::kFidelity},
      {MissFrame(1, 13), MissReason::kProtocol},
      {MissFrame(1, -1), MissReason::kProtocol},
  };
  for (const auto& [frame, reason] : cases) {
    node_.fetch = [&, f = frame](grpc::ServerContext&, FetchWriter& writer) {
      SendChunk(writer, 0);
      writer.Write(f);
      for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) writer.Write(DataFrame(1, slab));
      SendChunk(writer, 2);
      return grpc::Status::OK;
    };
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, reason, MissReason::kNone));
    EXPECT_LT(report.chunks[1].miss.detail.size(), 1000u);
  }
}

// A manifest as a later version might write it, whole and well-formed but for a codec that is not known here.
TEST_F(HostileNodeTest, ACodecOfALaterVersionIsNamed) {
  Manifest manifest = *chunks_[1].manifest;
  manifest.slabs[0].encoded_size = manifest.slabs[0].shape.RawSize();
  manifest.slabs[0].codec = CodecId::kRaw;
  const std::string raw = EncodeManifest(manifest).value();
  manifest.slabs[0].codec = CodecId::kZstd;
  std::string later = EncodeManifest(manifest).value();
  const size_t codec_at = static_cast<size_t>(std::mismatch(raw.begin(), raw.end(), later.begin()).first - raw.begin());
  later[codec_at] = 77;
  const uint64_t checksum = SlabChecksum(AsBytes(later).first(later.size() - sizeof checksum));
  std::memcpy(later.data() + later.size() - sizeof checksum, &checksum, sizeof checksum);

  v1::FetchFrame frame = ResultFrame(1);
  frame.mutable_result()->set_manifest(later);
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(frame);
    SendChunk(writer, 2);
    return grpc::Status::OK;
  };
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kUnknownCodec, MissReason::kNone));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("77"));
}

TEST_F(HostileNodeTest, FlippedBytesAreCorruptAndTheRestIsNot) {
  v1::FetchFrame flipped = DataFrame(1, 2);
  (*flipped.mutable_data())[11] ^= 4;
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(ResultFrame(1));
    for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) {
      writer.Write(slab == 2 ? flipped : DataFrame(1, slab));
    }
    SendChunk(writer, 2);
    return grpc::Status::OK;
  };
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone));
}

TEST_F(HostileNodeTest, AChunkTakenBackMidwayGetsTheSecondReason) {
  node_.fetch = [=, this](grpc::ServerContext&, FetchWriter& writer) {
    SendChunk(writer, 0);
    writer.Write(ResultFrame(1));
    writer.Write(DataFrame(1, 0));
    writer.Write(MissFrame(1, static_cast<int>(MissReason::kCorrupt)));
    SendChunk(writer, 2);
    return grpc::Status::OK;
  };
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone));
}

TEST_F(HostileNodeTest, APeerThatIsNoNodeIsABreach) {
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kProtocol));
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kTokens), {.deadline = kPlenty}).stopped_by.reason, MissReason::kProtocol);
}

TEST_F(HostileNodeTest, ALookupAnswersForEveryKeyOrForNone) {
  node_.lookup = [](v1::LookupResponse& response) {
    response.add_chunks();
    return grpc::Status::OK;
  };
  const PrefixHit hit = client_->LookupPrefix(SomeTokens(kTokens), {.deadline = kPlenty});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kProtocol);
  EXPECT_THAT(hit.stopped_by.detail, HasSubstr("1 chunks of 3"));
}

TEST_F(HostileNodeTest, AStoreIsOnlyAcknowledgedByAnAnswerForEveryChunk) {
  node_.store = [](grpc::ServerReader<v1::StoreFrame>& reader, v1::StoreResponse& response) {
    v1::StoreFrame frame;
    while (reader.Read(&frame)) {
    }
    response.add_chunks();
    return grpc::Status::OK;
  };
  StoreReport report = client_->Store(refs_, computed_.view(), {.deadline = kPlenty}).value();
  EXPECT_EQ(report.Stored(), 0u);
  EXPECT_THAT(report.chunks[0].ToString(), HasSubstr("1 chunks of 3"));

  node_.store = [](grpc::ServerReader<v1::StoreFrame>&, v1::StoreResponse&) {
    return grpc::Status(grpc::RESOURCE_EXHAUSTED, "no room");
  };
  report = client_->Store(refs_, computed_.view(), {.deadline = kPlenty}).value();
  EXPECT_EQ(report.Stored(), 0u);
  for (const absl::Status& status : report.chunks) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.ToString(), HasSubstr("no room"));
  }
}

TEST_F(HostileNodeTest, AnUnknownStatusCodeIsAnError) {
  node_.store = [](grpc::ServerReader<v1::StoreFrame>& reader, v1::StoreResponse& response) {
    v1::StoreFrame frame;
    while (reader.Read(&frame)) {
    }
    for (const int code : {-1, 17, 0}) response.add_chunks()->set_code(code);
    return grpc::Status::OK;
  };
  const StoreReport report = client_->Store(refs_, computed_.view(), {.deadline = kPlenty}).value();
  EXPECT_EQ(report.chunks[0].code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(report.chunks[1].code(), absl::StatusCode::kUnknown);
  EXPECT_TRUE(report.chunks[2].ok());
}

TEST_F(HostileNodeTest, ANodeThatIsAwayIsUnreachableAtOnce) {
  node_.Die();
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), Each(MissReason::kUnreachable));
  EXPECT_LT(report.elapsed, kPlenty / 4);
  EXPECT_EQ(client_->LookupPrefix(SomeTokens(kTokens), {.deadline = kPlenty}).stopped_by.reason,
            MissReason::kUnreachable);
  EXPECT_THAT(client_->Store(refs_, computed_.view(), {.deadline = kPlenty})->chunks[0].ToString(),
              HasSubstr("UNAVAILABLE: node 127.0.0.1:"));
}

TEST_F(HostileNodeTest, ANodeThatCameBackIsFoundAgain) {
  const auto serve = [&](grpc::ServerContext&, FetchWriter& writer) {
    for (const uint32_t chunk : {0u, 1u, 2u}) SendChunk(writer, chunk);
    return grpc::Status::OK;
  };
  node_.fetch = serve;
  ASSERT_TRUE(Fetch().AllReady());
  node_.Die();
  ASSERT_THAT(Reasons(Fetch()), Each(MissReason::kUnreachable));

  ScriptedNode reborn(node_.port());
  ASSERT_TRUE(reborn.listens());
  reborn.fetch = serve;
  const absl::Time began = absl::Now();
  while (!Fetch().AllReady() && absl::Now() < began + absl::Seconds(30)) {
  }
  EXPECT_LT(absl::Now() - began, absl::Seconds(3));
}

}  // namespace
}  // namespace kdn
