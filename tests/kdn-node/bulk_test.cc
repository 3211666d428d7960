// The bulk protocol as a client sees it that knows nothing of KDN's own.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>

#include "kdn-node/bulk/bulk_connection.h"
#include "kdn-node/bulk/bulk_server.h"
#include "tests/kdn-node/node_test.h"
#include "tests/proto/bulk_wire.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using wire::BulkType;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPlentyUs = 60'000'000;
constexpr uint64_t kBatchBytes = 4 * kMiB;
// A chunk of so many tokens has 4 MiB.
constexpr uint32_t kLargeTokens = 8192;

std::string OpeningBytes(uint32_t version = wire::kBulkVersion) {
  v1::BulkHello hello;
  hello.set_version(version);
  return std::string(wire::kBulkPreface) + wire::EncodeBulkFrame(BulkType::kHello, hello);
}

v1::BulkCall FetchCallFor(const v1::FetchRequest& request, uint64_t timeout_us = kPlentyUs) {
  v1::BulkCall call;
  call.set_timeout_us(timeout_us);
  *call.mutable_fetch() = request;
  return call;
}

v1::BulkCall StoreCallFor(size_t chunks) {
  v1::BulkCall call;
  call.set_timeout_us(kPlentyUs);
  call.mutable_store()->set_chunks(static_cast<uint32_t>(chunks));
  return call;
}

v1::StoreBegin BeginOf(const Chunk& chunk) {
  v1::StoreBegin begin;
  begin.set_manifest(EncodeManifest(*chunk.manifest).value());
  begin.set_ack(v1::ACK_MEMORY);
  return begin;
}

int Code(absl::StatusCode code) { return static_cast<int>(code); }

// A connection that has greeted, and by the local socket also the shared memory.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : wire_(std::move(fd)) {}
  ~Peer() {
    if (memory_ != nullptr) munmap(const_cast<uint8_t*>(memory_), welcome_.shared_bytes());
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  BulkWire& wire() { return wire_; }
  const v1::BulkWelcome& welcome() const { return welcome_; }

  void Greet() {
    ASSERT_TRUE(wire_.valid());
    ASSERT_TRUE(wire_.Send(OpeningBytes()));
    TakeWelcome();
  }
  void TakeWelcome() {
    const std::optional<BulkWire::Frame> frame = wire_.Read();
    ASSERT_TRUE(frame.has_value());
    ASSERT_EQ(frame->type, BulkType::kWelcome);
    welcome_ = frame->As<v1::BulkWelcome>();
    EXPECT_EQ(welcome_.version(), wire::kBulkVersion);
    const UniqueFd memory = wire_.TakeDescriptor();
    ASSERT_EQ(memory.valid(), welcome_.shared_bytes() > 0);
    if (!memory.valid()) return;
    void* const base = mmap(nullptr, welcome_.shared_bytes(), PROT_READ, MAP_SHARED, memory.get(), 0);
    ASSERT_NE(base, MAP_FAILED);
    memory_ = static_cast<const uint8_t*>(base);
  }

  // What one frame brought.
  struct Batch {
    std::vector<v1::FetchFrame> items;
    uint64_t lent = 0;
  };
  Batch Take(const BulkWire::Frame& frame) {
    EXPECT_EQ(frame.type, BulkType::kSlabs);
    Batch batch;
    size_t at = 0;
    const auto slabs = frame.As<v1::BulkSlabs>();
    for (const v1::BulkItem& item : slabs.items()) {
      v1::FetchFrame out;
      out.set_chunk(item.chunk());
      if (item.has_result()) {
        *out.mutable_result() = item.result();
      } else {
        out.set_slab(item.slab());
        if (item.shared()) {
          EXPECT_LE(item.offset() + item.bytes(), welcome_.shared_bytes());
          out.set_data(std::string(reinterpret_cast<const char*>(memory_ + item.offset()), item.bytes()));
          batch.lent += item.bytes();
        } else {
          out.set_data(frame.data.substr(at, item.bytes()));
          EXPECT_EQ(out.data().size(), item.bytes());
          at += item.bytes();
        }
      }
      batch.items.push_back(std::move(out));
    }
    EXPECT_EQ(at, frame.data.size()) << "data of no slab";
    return batch;
  }

  void Release(uint32_t batches) {
    v1::BulkRelease release;
    release.set_batches(batches);
    EXPECT_TRUE(wire_.SendFrame(BulkType::kRelease, release));
  }

  // The next frame, which must be an answer.
  v1::BulkAnswer Answer() {
    const std::optional<BulkWire::Frame> frame = wire_.Read();
    EXPECT_TRUE(frame.has_value());
    if (!frame.has_value()) return {};
    EXPECT_EQ(frame->type, BulkType::kAnswer);
    return frame->As<v1::BulkAnswer>();
  }

  // A whole fetch. What was shared is given back at once, batch by batch.
  Fetched Fetch(const v1::FetchRequest& request, uint64_t timeout_us = kPlentyUs) {
    EXPECT_TRUE(wire_.SendFrame(BulkType::kCall, FetchCallFor(request, timeout_us)));
    return FetchRest();
  }
  Fetched FetchRest() {
    Fetched fetched;
    for (;;) {
      const std::optional<BulkWire::Frame> frame = wire_.Read();
      if (!frame.has_value()) {
        fetched.status = grpc::Status(grpc::UNAVAILABLE, "closed");
        return fetched;
      }
      if (frame->type == BulkType::kAnswer) {
        const auto status = frame->As<v1::BulkAnswer>().status();
        fetched.status = grpc::Status(static_cast<grpc::StatusCode>(status.code()), status.message());
        return fetched;
      }
      const Batch batch = Take(*frame);
      for (const v1::FetchFrame& item : batch.items) fetched.Take(item);
      lent_ += batch.lent;
      if (batch.lent > 0) Release(1);
    }
  }

  v1::BulkAnswer Store(const std::vector<Chunk>& chunks) {
    EXPECT_TRUE(wire_.SendFrame(BulkType::kCall, StoreCallFor(chunks.size())));
    for (const Chunk& chunk : chunks) EXPECT_TRUE(SendChunk(chunk));
    return Answer();
  }
  bool SendChunk(const Chunk& chunk) {
    return wire_.SendFrame(BulkType::kChunk, BeginOf(chunk), testing::BytesOf(chunk));
  }

  uint64_t lent() const { return lent_; }

 private:
  BulkWire wire_;
  v1::BulkWelcome welcome_;
  const uint8_t* memory_ = nullptr;
  uint64_t lent_ = 0;
};

// A server without gRPC: what is not for it is put aside.
class BulkServerTest : public ::testing::Test {
 protected:
  void StartNode() {
    if (arena_bytes_ > 0) store_options_.arena = SharedArena::Create(arena_bytes_).value();
    store_ = std::make_unique<HookedStore>(TieredStore::Open(store_options_).value());
    metrics_ = std::make_unique<NodeMetrics>(*store_);
    state_ = std::make_unique<ServiceState>(*store_, *metrics_, options_, Clock::Real());
    absl::StatusOr<std::unique_ptr<BulkServer>> server =
        BulkServer::Start(*state_, bulk_options_, [this](UniqueFd socket) {
          MutexLock lock(mu_);
          handed_on_.push_back(std::move(socket));
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void TearDown() override {
    server_.reset();
    state_.reset();
    metrics_.reset();
    store_.reset();
  }

  UniqueFd Connect(int receive_bytes = 0) const { return ConnectTo(server_->endpoint().port, receive_bytes); }
  std::unique_ptr<Peer> Greeted(int receive_bytes = 0) const {
    auto peer = std::make_unique<Peer>(Connect(receive_bytes));
    peer->Greet();
    return peer;
  }
  std::unique_ptr<Peer> GreetedLocally() const {
    auto peer = std::make_unique<Peer>(ConnectToLocal(Greeted()->welcome().local_socket()));
    peer->Greet();
    return peer;
  }

  std::vector<Chunk> MakeChunks(size_t n, uint32_t tokens = 16, uint32_t first_seed = 1) const {
    std::vector<Chunk> chunks;
    for (uint32_t i = 0; i < n; ++i) chunks.push_back(testing::MakeChunk(space_, first_seed + i, tokens));
    return chunks;
  }
  v1::FetchRequest RequestFor(const std::vector<Chunk>& chunks) const {
    v1::FetchRequest request;
    request.set_space_id(std::string(AsStringView(testing::IdOf(space_).span())));
    for (const Chunk& chunk : chunks) request.mutable_keys()->append(AsStringView(chunk.manifest->key.span()));
    return request;
  }
  static void ExpectWhole(const Fetched& fetched, const std::vector<Chunk>& chunks) {
    EXPECT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    for (uint32_t i = 0; i < chunks.size(); ++i) {
      ASSERT_TRUE(fetched.chunks.contains(i)) << i;
      const Fetched::OfChunk& got = fetched.chunks.at(i);
      ASSERT_EQ(got.results.size(), 1u);
      EXPECT_EQ(got.results[0].manifest(), EncodeManifest(*chunks[i].manifest).value());
      std::string bytes;
      for (const auto& [slab, data] : got.slabs) bytes += data;
      EXPECT_TRUE(bytes == testing::BytesOf(chunks[i])) << "chunk " << i;
    }
  }
  void MustStore(const std::vector<Chunk>& chunks) const {
    const v1::BulkAnswer answer = Greeted()->Store(chunks);
    ASSERT_EQ(answer.status().code(), 0) << answer.status().message();
    ASSERT_EQ(answer.store().chunks_size(), static_cast<int>(chunks.size()));
    for (const v1::ChunkStatus& chunk : answer.store().chunks()) ASSERT_EQ(chunk.code(), 0) << chunk.message();
  }
  bool Holds(const Chunk& chunk) const {
    const std::vector<ChunkKey> keys = {chunk.manifest->key};
    return store_->Lookup(testing::IdOf(space_), keys, Fidelity::kExact)[0].miss.reason == MissReason::kNone;
  }

  static bool Eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }
  UniqueFd TakeHandedOn() {
    const auto any = [this] {
      MutexLock lock(mu_);
      return !handed_on_.empty();
    };
    EXPECT_TRUE(Eventually(any));
    MutexLock lock(mu_);
    if (handed_on_.empty()) return {};
    UniqueFd socket = std::move(handed_on_.back());
    handed_on_.pop_back();
    return socket;
  }

  TieredStoreOptions store_options_;
  NodeServiceOptions options_;
  BulkServerOptions bulk_options_ = {.listen = {.host = "127.0.0.1", .port = 0}};
  uint64_t arena_bytes_ = 96 * kMiB;
  const KvSpace space_ = testing::MakeSpace();

  std::unique_ptr<HookedStore> store_;
  std::unique_ptr<NodeMetrics> metrics_;
  std::unique_ptr<ServiceState> state_;
  std::unique_ptr<BulkServer> server_;

 private:
  Mutex mu_;
  std::vector<UniqueFd> handed_on_ ABSL_GUARDED_BY(mu_);
};

TEST_F(BulkServerTest, AGreetingThatComesByteByByteIsRecognised) {
  StartNode();
  Peer peer(Connect());
  for (const char byte : OpeningBytes()) {
    ASSERT_TRUE(peer.wire().Send({&byte, 1}));
    // Whatever else the node does in between, it has seen this byte by then.
    ASSERT_NO_FATAL_FAILURE(Greeted());
  }
  peer.TakeWelcome();
  EXPECT_FALSE(peer.welcome().machine().empty());
  EXPECT_FALSE(peer.welcome().local_socket().empty());
}

TEST_F(BulkServerTest, WhatIsNotForItIsHandedOnUnread) {
  StartNode();
  for (const std::string_view first : {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "KDNBULK2", "GET / HTTP/1.1\r\n\r\n"}) {
    BulkWire peer(Connect());
    ASSERT_TRUE(peer.Send(first));
    BulkWire other_end(TakeHandedOn());
    std::string read(first.size(), '\0');
    ASSERT_TRUE(other_end.ReadExactly(read.data(), read.size()));
    EXPECT_EQ(read, first);
    ASSERT_TRUE(other_end.Send("yes"));
    std::string answer(3, '\0');
    ASSERT_TRUE(peer.ReadExactly(answer.data(), answer.size()));
    EXPECT_EQ(answer, "yes");
  }
  // Less than a preface, and nothing more to come.
  BulkWire peer(Connect());
  ASSERT_TRUE(peer.Send("GET"));
  shutdown(peer.fd(), SHUT_WR);
  EXPECT_TRUE(TakeHandedOn().valid());
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(BulkServerTest, AnotherVersionIsNotAnswered) {
  StartNode();
  for (const uint32_t version : {0u, 2u}) {
    BulkWire peer(Connect());
    ASSERT_TRUE(peer.Send(OpeningBytes(version)));
    EXPECT_TRUE(peer.Ends());
  }
  BulkWire no_hello(Connect());
  ASSERT_TRUE(no_hello.Send(wire::kBulkPreface));
  ASSERT_TRUE(no_hello.SendFrame(BulkType::kCall, StoreCallFor(1)));
  EXPECT_TRUE(no_hello.Ends());
  EXPECT_TRUE(Eventually([this] { return server_->connections() == 0; }));
}

TEST_F(BulkServerTest, BrokenFramesAreAnsweredThoughBytesAreUnreadAndThenItCloses) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space_, 1);
  const std::string begin = BeginOf(chunk).SerializeAsString();
  struct Case {
    const char* what;
    std::function<void(BulkWire&)> send;
    absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  };
  const std::vector<Case> cases = {
      {"an unknown type", [](BulkWire& w) { w.SendHeader(static_cast<BulkType>(77), 0, 0); }},
      {"an oversized message",
       [](BulkWire& w) { w.SendHeader(BulkType::kCall, static_cast<uint32_t>(wire::kMaxMessageBytes) + 1, 0); }},
      {"a message over what any may have", [](BulkWire& w) { w.SendHeader(BulkType::kCall, UINT32_MAX, 0); }},
      {"a call with data",
       [&](BulkWire& w) { w.SendFrame(BulkType::kCall, FetchCallFor(RequestFor({chunk})), "data"); }},
      {"a call that is none", [](BulkWire& w) { w.SendRaw(BulkType::kCall, "\xff\xff\xff"); }},
      {"a call of a later version", [](BulkWire& w) { w.SendFrame(BulkType::kCall, v1::BulkCall()); },
       absl::StatusCode::kUnimplemented},
      {"a chunk without a store", [&](BulkWire& w) { w.SendRaw(BulkType::kChunk, begin, 8192); }},
      {"a second greeting", [](BulkWire& w) { w.SendFrame(BulkType::kHello, v1::BulkHello()); }},
      {"a node's frame", [](BulkWire& w) { w.SendFrame(BulkType::kAnswer, v1::BulkAnswer()); }},
      {"something given back that was not lent",
       [](BulkWire& w) { w.SendFrame(BulkType::kRelease, v1::BulkRelease()); }},
      {"a store of nothing", [](BulkWire& w) { w.SendFrame(BulkType::kCall, StoreCallFor(0)); }},
      {"a store of too many", [](BulkWire& w) { w.SendFrame(BulkType::kCall, StoreCallFor(4097)); }},
      {"a call during a store",
       [&](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(2));
         w.SendFrame(BulkType::kChunk, BeginOf(chunk), testing::BytesOf(chunk));
         w.SendFrame(BulkType::kCall, FetchCallFor(RequestFor({chunk})));
       }},
      {"a chunk that is none",
       [](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(1));
         w.SendRaw(BulkType::kChunk, "\xff\xff\xff", 100);
       }},
      {"more bytes than the manifest names",
       [&](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(1));
         w.SendRaw(BulkType::kChunk, begin, testing::BytesOf(chunk).size() + 1);
       }},
      {"fewer bytes than the manifest names",
       [&](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(1));
         w.SendRaw(BulkType::kChunk, begin, testing::BytesOf(chunk).size() - 1);
       }},
      {"more bytes than any chunk has",
       [&](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(1));
         w.SendRaw(BulkType::kChunk, begin, kMaxChunkBytes + 1);
       }},
      {"a half-sent manifest",
       [&](BulkWire& w) {
         w.SendFrame(BulkType::kCall, StoreCallFor(1));
         w.SendRaw(BulkType::kChunk, begin.substr(0, begin.size() / 2), UINT64_MAX);
       }},
  };
  const std::string unread(3 * kMiB, '\xee');
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const std::unique_ptr<Peer> peer = Greeted();
    c.send(peer->wire());
    EXPECT_TRUE(peer->wire().Send(unread)) << "it is drained, so that the answer arrives";
    EXPECT_EQ(peer->Answer().status().code(), Code(c.code));
    EXPECT_TRUE(peer->wire().Ends());
  }
  EXPECT_TRUE(Eventually([this] { return server_->connections() == 0; }));
  EXPECT_EQ(state_->uploads.held(), 0u);
  ASSERT_NO_FATAL_FAILURE(Greeted()) << "others are served as ever";
}

TEST_F(BulkServerTest, AFetchWithoutTimeEndsAtOnceAndTheConnectionStaysGood) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  const Fetched none = peer->Fetch(RequestFor(chunks), 0);
  EXPECT_EQ(none.status.error_code(), grpc::DEADLINE_EXCEEDED);
  EXPECT_TRUE(none.chunks.empty());
  ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
  ExpectWhole(peer->Fetch(RequestFor(chunks), UINT64_MAX), chunks);
}

TEST_F(BulkServerTest, AMalformedFetchIsRefusedAndTheConnectionStaysGood) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(1);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  v1::FetchRequest bad = RequestFor(chunks);
  bad.mutable_keys()->pop_back();
  EXPECT_EQ(peer->Fetch(bad).status.error_code(), grpc::INVALID_ARGUMENT);
  ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
}

TEST_F(BulkServerTest, ALookupSaysWhatIsHeld) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore({chunks[0], chunks[2]});
  const std::unique_ptr<Peer> peer = Greeted();
  v1::BulkCall call;
  call.set_timeout_us(kPlentyUs);
  call.mutable_lookup()->set_space_id(RequestFor(chunks).space_id());
  call.mutable_lookup()->set_keys(RequestFor(chunks).keys());
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, call));
  const v1::BulkAnswer answer = peer->Answer();
  ASSERT_EQ(answer.lookup().chunks_size(), 3);
  EXPECT_EQ(answer.lookup().prefix_chunks(), 1u);
  EXPECT_EQ(answer.lookup().chunks(1).miss(), v1::MISS_REASON_NOT_FOUND);
  EXPECT_EQ(answer.lookup().chunks(2).miss(), v1::MISS_REASON_UNSPECIFIED);
  call.mutable_lookup()->mutable_keys()->pop_back();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, call));
  EXPECT_EQ(peer->Answer().status().code(), Code(absl::StatusCode::kInvalidArgument));
}

// Fetches of clients that do not wait for one to end before they send the next.
TEST_F(BulkServerTest, CallsThatWaitInTheSocketAreServedInTurn) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2, 1024);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  }
  for (int i = 0; i < 20; ++i) ExpectWhole(peer->FetchRest(), chunks);
}

TEST_F(BulkServerTest, DamagedChunksAreDataLossAndTheOthersAreStored) {
  StartNode();
  std::vector<Chunk> chunks = MakeChunks(3);
  const Chunk whole = chunks[1];
  chunks[1] = testing::WithFlippedByte(whole, 4);
  const std::unique_ptr<Peer> peer = Greeted();
  const v1::BulkAnswer answer = peer->Store(chunks);
  ASSERT_EQ(answer.status().code(), 0);
  ASSERT_EQ(answer.store().chunks_size(), 3);
  EXPECT_EQ(answer.store().chunks(0).code(), 0);
  EXPECT_EQ(answer.store().chunks(1).code(), Code(absl::StatusCode::kDataLoss));
  EXPECT_EQ(answer.store().chunks(2).code(), 0);
  EXPECT_FALSE(Holds(whole));
  ExpectWhole(peer->Fetch(RequestFor({chunks[0], chunks[2]})), {chunks[0], chunks[2]});
}

TEST_F(BulkServerTest, AChunkWithABrokenManifestIsSkippedByItsSize) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  const std::unique_ptr<Peer> peer = Greeted();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, StoreCallFor(3)));
  ASSERT_TRUE(peer->SendChunk(chunks[0]));
  v1::StoreBegin broken = BeginOf(chunks[1]);
  broken.mutable_manifest()->back() ^= 1;
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kChunk, broken, std::string(kMiB + 7, 'x')));
  ASSERT_TRUE(peer->SendChunk(chunks[1]));
  const v1::BulkAnswer answer = peer->Answer();
  ASSERT_EQ(answer.store().chunks_size(), 3);
  EXPECT_EQ(answer.store().chunks(0).code(), 0);
  EXPECT_NE(answer.store().chunks(1).code(), 0);
  EXPECT_EQ(answer.store().chunks(2).code(), 0);
  EXPECT_TRUE(Holds(chunks[0]) && Holds(chunks[1]));
}

TEST_F(BulkServerTest, AChunkOverTheUploadBudgetIsRefusedAndTheNextIsStored) {
  options_.max_upload_bytes = 64 << 10;
  StartNode();
  const Chunk large = testing::MakeChunk(space_, 1, 1024);
  const Chunk small = testing::MakeChunk(space_, 2);
  const std::unique_ptr<Peer> peer = Greeted();
  const v1::BulkAnswer answer = peer->Store({large, small});
  ASSERT_EQ(answer.store().chunks_size(), 2);
  EXPECT_EQ(answer.store().chunks(0).code(), Code(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(answer.store().chunks(0).message(), HasSubstr("--max-upload-bytes"));
  EXPECT_EQ(answer.store().chunks(1).code(), 0) << answer.store().chunks(1).message();
  EXPECT_FALSE(Holds(large));
  EXPECT_TRUE(Holds(small));
  EXPECT_EQ(state_->uploads.held(), 0u);
}

TEST_F(BulkServerTest, UploadsCutOffMidwayLeaveNothing) {
  StartNode();
  const Chunk whole = testing::MakeChunk(space_, 1, 1024);
  const Chunk cut = testing::MakeChunk(space_, 2, 1024);
  const uint64_t arena_before = store_->arena()->used_bytes();
  for (const size_t at : {size_t{0}, size_t{1}, size_t{100'000}, testing::BytesOf(cut).size() - 1}) {
    const std::unique_ptr<Peer> peer = Greeted();
    ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, StoreCallFor(2)));
    ASSERT_TRUE(peer->wire().SendRaw(BulkType::kChunk, BeginOf(cut).SerializeAsString(), testing::BytesOf(cut).size()));
    ASSERT_TRUE(peer->wire().Send(testing::BytesOf(cut).substr(0, at)));
    EXPECT_TRUE(Eventually([this] { return state_->uploads.held() > 0; }));
    peer->wire().Close();
    EXPECT_TRUE(Eventually([this] { return state_->uploads.held() == 0; })) << at;
    EXPECT_FALSE(Holds(cut));
    EXPECT_TRUE(Eventually([&] { return store_->arena()->used_bytes() == arena_before; }));
  }
  // What was whole before the cut stays.
  const std::unique_ptr<Peer> peer = Greeted();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, StoreCallFor(2)));
  ASSERT_TRUE(peer->SendChunk(whole));
  EXPECT_TRUE(Eventually([&] { return Holds(whole); }));
  peer->wire().Close();
  EXPECT_TRUE(Eventually([this] { return server_->connections() == 0; }));
  EXPECT_TRUE(Holds(whole));
  EXPECT_TRUE(state_->streams.AwaitNone(std::chrono::steady_clock::now())) << "no call is left running";
}

TEST_F(BulkServerTest, ASlowReaderIsReadForNoFurtherThanItTakes) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(16, kLargeTokens);
  const std::vector<Chunk> others = MakeChunks(4, kLargeTokens, 100);
  MustStore(chunks);
  MustStore(others);
  std::atomic<size_t> read_chunks = 0;
  const std::set<ChunkKey> slow = [&] {
    std::set<ChunkKey> keys;
    for (const Chunk& chunk : chunks) keys.insert(chunk.manifest->key);
    return keys;
  }();
  // A chunk may be asked for more than once.
  Mutex mu;
  std::set<ChunkKey> seen;
  store_->before_fetch = [&](const ChunkKey& key, LayerRange) {
    if (!slow.contains(key)) return;
    MutexLock lock(mu);
    seen.insert(key);
    read_chunks = seen.size();
  };
  const std::unique_ptr<Peer> peer = Greeted(/*receive_bytes=*/64 << 10);
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  ASSERT_TRUE(Eventually([&] { return read_chunks > 0; }));
  // Another peer moves as much meanwhile.
  for (int i = 0; i < 4; ++i) ExpectWhole(Greeted()->Fetch(RequestFor(others)), others);
  EXPECT_LE(read_chunks, 6u) << "more than the socket's buffers and a batch or two";
  EXPECT_GT(state_->fetches.held(), 0u);
  EXPECT_LE(state_->fetches.held(), 2 * BulkConnection::kLendBytes);
  peer->wire().Close();
  EXPECT_TRUE(Eventually([this] { return state_->fetches.held() == 0; }));
  EXPECT_TRUE(Eventually([this] { return server_->connections() == 0; }));
}

// A peer that says that it will send nothing more, and then takes its time, costs memory and no processor.
TEST_F(BulkServerTest, AHalfClosedSlowReaderCostsNoProcessorTime) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(8, kLargeTokens);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted(/*receive_bytes=*/64 << 10);
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  shutdown(peer->wire().fd(), SHUT_WR);
  ASSERT_TRUE(Eventually([this] { return state_->fetches.held() > 0; }));
  const auto processor_ms = [] {
    timespec used = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000 + used.tv_nsec / 1'000'000;
  };
  const auto before = processor_ms();
  poll(nullptr, 0, 500);  // the time over which it is measured
  EXPECT_LT(processor_ms() - before, 100);
}

TEST_F(BulkServerTest, ALocalPeerIsLentExactlyTheSlabs) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(10, 1024);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = GreetedLocally();
  EXPECT_EQ(peer->welcome().shared_bytes(), store_->arena()->size());
  ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
  uint64_t all = 0;
  for (const Chunk& chunk : chunks) all += chunk.manifest->EncodedBytes();
  EXPECT_EQ(peer->lent(), all);
  EXPECT_TRUE(Eventually([this] { return state_->fetches.held() == 0; })) << "all was given back";
}

TEST_F(BulkServerTest, APeerThatGivesNothingBackIsLentNoMoreThanTheWindow) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(12, kLargeTokens);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = GreetedLocally();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  uint64_t lent = 0;
  while (lent < BulkConnection::kLendBytes) {
    const std::optional<BulkWire::Frame> frame = peer->wire().Read();
    ASSERT_TRUE(frame.has_value());
    lent += peer->Take(*frame).lent;
  }
  // The node turns to what its peer sends once it may lend nothing more. This is a breach, and its answer comes next.
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kHello, v1::BulkHello()));
  for (;;) {
    const std::optional<BulkWire::Frame> frame = peer->wire().Read();
    ASSERT_TRUE(frame.has_value());
    if (frame->type == BulkType::kAnswer) break;
    lent += peer->Take(*frame).lent;
  }
  EXPECT_LE(lent, BulkConnection::kLendBytes + kBatchBytes);
  EXPECT_GT(state_->fetches.held(), 0u) << "it still has what it was lent";
  peer->wire().Close();
  EXPECT_TRUE(Eventually([this] { return state_->fetches.held() == 0; }));
}

TEST_F(BulkServerTest, WhatIsGivenBackMakesRoomForTheRest) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(12, kLargeTokens);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = GreetedLocally();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  Fetched fetched;
  uint32_t batches = 0;
  uint64_t lent = 0;
  for (;;) {
    const std::optional<BulkWire::Frame> frame = peer->wire().Read();
    ASSERT_TRUE(frame.has_value());
    if (frame->type == BulkType::kAnswer) break;
    const Peer::Batch batch = peer->Take(*frame);
    for (const v1::FetchFrame& item : batch.items) fetched.Take(item);
    lent += batch.lent;
    ++batches;
    if (lent >= BulkConnection::kLendBytes) {  // all at once, and not before it must be
      peer->Release(batches);
      batches = 0;
      lent = 0;
    }
  }
  ExpectWhole(fetched, chunks);
}

// Batches without shared slabs come in between where chunks are missing, or lie on the heap.
TEST_F(BulkServerTest, BatchesOfWhichNothingIsLentNeedNotBeGivenBack) {
  StartNode();
  std::vector<Chunk> chunks = MakeChunks(6, kLargeTokens);
  MustStore(chunks);
  v1::FetchRequest request = RequestFor({});
  constexpr uint32_t kMissing = 3500;
  for (uint32_t i = 0; i < kMissing; ++i) {
    std::string key(kDigestSize, '\x5a');
    std::memcpy(key.data(), &i, sizeof i);
    request.mutable_keys()->append(key);
  }
  request.mutable_keys()->append(RequestFor(chunks).keys());
  const std::unique_ptr<Peer> peer = GreetedLocally();
  const Fetched fetched = peer->Fetch(request, 5'000'000);
  EXPECT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    ASSERT_TRUE(fetched.chunks.contains(kMissing + i)) << i;
    EXPECT_EQ(fetched.chunks.at(kMissing + i).slabs.size(), chunks[i].slabs.size());
  }
  EXPECT_TRUE(Eventually([this] { return state_->fetches.held() == 0; })) << "all was given back";
}

TEST_F(BulkServerTest, TheNextCallGivesBackWhatTheLastOneLent) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2, 1024);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = GreetedLocally();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
    for (;;) {
      const std::optional<BulkWire::Frame> frame = peer->wire().Read();
      ASSERT_TRUE(frame.has_value());
      if (frame->type == BulkType::kAnswer) break;
    }
    ASSERT_LE(state_->fetches.held(), BulkConnection::kLendBytes) << i;
  }
  v1::BulkCall lookup;
  lookup.mutable_lookup()->set_space_id(RequestFor(chunks).space_id());
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, lookup));
  EXPECT_EQ(peer->Answer().status().code(), 0);
  EXPECT_EQ(state_->fetches.held(), 0u);
}

TEST_F(BulkServerTest, LentSlabsOutliveTheirChunk) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space_, 1, 1024);
  MustStore({chunk});
  const std::unique_ptr<Peer> peer = GreetedLocally();
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor({chunk}))));
  const std::optional<BulkWire::Frame> frame = peer->wire().Read();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(peer->Answer().status().code(), 0);
  ASSERT_TRUE(store_->Delete(testing::IdOf(space_), chunk.manifest->key).ok());
  MustStore(MakeChunks(4, 1024, 50));  // which would like its memory
  Fetched fetched;
  for (const v1::FetchFrame& item : peer->Take(*frame).items) fetched.Take(item);
  ExpectWhole(fetched, {chunk});
}

TEST_F(BulkServerTest, WithoutAnArenaThereIsNoLocalSocket) {
  arena_bytes_ = 0;
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2, 1024);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  EXPECT_EQ(peer->welcome().local_socket(), "");
  EXPECT_EQ(peer->welcome().shared_bytes(), 0u);
  ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
}

TEST_F(BulkServerTest, AFetchBeyondTheBudgetIsRefusedAtOnceAndTheConnectionStaysGood) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  {
    ByteReservation others(state_->fetches);
    ASSERT_TRUE(others.Grow(state_->fetches.limit()));
    const Fetched refused = peer->Fetch(RequestFor(chunks));
    EXPECT_EQ(refused.status.error_code(), grpc::RESOURCE_EXHAUSTED);
    EXPECT_THAT(refused.status.error_message(), HasSubstr("--max-fetch-bytes"));
    EXPECT_TRUE(refused.chunks.empty());
  }
  ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
}

TEST_F(BulkServerTest, OneConnectionTooManyIsClosed) {
  bulk_options_.max_connections = 2;
  StartNode();
  const std::unique_ptr<Peer> first = Greeted();
  std::unique_ptr<Peer> second = Greeted();
  {
    BulkWire third(Connect());
    third.Send(OpeningBytes());
    EXPECT_TRUE(third.Ends());
    BulkWire local(ConnectToLocal(first->welcome().local_socket()));
    local.Send(OpeningBytes());
    EXPECT_TRUE(local.Ends());
  }
  EXPECT_EQ(server_->connections(), 2u);
  second.reset();
  EXPECT_TRUE(Eventually([this] { return server_->connections() == 1; }));
  Greeted();
}

TEST_F(BulkServerTest, ItStopsWhateverItsPeersDo) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(12, kLargeTokens);
  MustStore(chunks);
  const std::unique_ptr<Peer> idle = Greeted();
  BulkWire silent(Connect());
  BulkWire half(Connect());
  ASSERT_TRUE(half.Send("KDN"));
  const std::unique_ptr<Peer> slow = Greeted(/*receive_bytes=*/64 << 10);
  ASSERT_TRUE(slow->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  const std::unique_ptr<Peer> borrower = GreetedLocally();
  ASSERT_TRUE(borrower->wire().SendFrame(BulkType::kCall, FetchCallFor(RequestFor(chunks))));
  const std::unique_ptr<Peer> storing = Greeted();
  ASSERT_TRUE(storing->wire().SendFrame(BulkType::kCall, StoreCallFor(1)));
  ASSERT_TRUE(storing->wire().SendRaw(BulkType::kChunk, BeginOf(chunks[0]).SerializeAsString(),
                                      testing::BytesOf(chunks[0]).size()));
  ASSERT_TRUE(Eventually(
      [this] { return state_->fetches.held() >= 2 * BulkConnection::kLendBytes && state_->uploads.held() > 0; }));
  server_->Stop();
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(state_->fetches.held(), 0u);
  EXPECT_EQ(state_->uploads.held(), 0u);
  EXPECT_TRUE(state_->streams.AwaitNone(std::chrono::steady_clock::now()));
  EXPECT_TRUE(idle->wire().Ends());
  EXPECT_TRUE(silent.Ends());
  EXPECT_TRUE(half.Ends());
  while (slow->wire().Read().has_value()) {
  }
  EXPECT_FALSE(Connect().valid());
}

TEST_F(BulkServerTest, ANodeThatIsStoppingTakesNoNewCalls) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(1);
  MustStore(chunks);
  const std::unique_ptr<Peer> peer = Greeted();
  state_->stopping = true;
  EXPECT_EQ(peer->Fetch(RequestFor(chunks)).status.error_code(), grpc::UNAVAILABLE);
  v1::BulkCall lookup;
  lookup.mutable_lookup()->set_space_id(RequestFor(chunks).space_id());
  ASSERT_TRUE(peer->wire().SendFrame(BulkType::kCall, lookup));
  EXPECT_EQ(peer->Answer().status().code(), Code(absl::StatusCode::kUnavailable));
  EXPECT_EQ(peer->Store(MakeChunks(1, 16, 7)).status().code(), Code(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(peer->wire().Ends());
}

TEST_F(BulkServerTest, ManyPeersAtOnceAreAllServed) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(8, 512);
  MustStore(chunks);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const std::unique_ptr<Peer> peer = i % 2 == 0 ? Greeted() : GreetedLocally();
      for (uint32_t round = 0; round < 10; ++round) {
        ExpectWhole(peer->Fetch(RequestFor(chunks)), chunks);
        const std::vector<Chunk> own = MakeChunks(2, 64, 1000 + 100 * i + 2 * round);
        EXPECT_EQ(peer->Store(own).status().code(), 0);
        ExpectWhole(peer->Fetch(RequestFor(own)), own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(BulkServerTest, AnotherUserIsNotServedByTheLocalSocket) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer does not let a process with threads fork";
#endif
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user to try this";
  StartNode();
  const std::string name = Greeted()->welcome().local_socket();
  const std::string opening = OpeningBytes();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // Nothing but system calls here. 0: it was closed without a word.
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(3);
    const UniqueFd socket = ConnectToLocal(name);
    if (!socket.valid()) _exit(4);
    const timeval longest = {.tv_sec = 20, .tv_usec = 0};
    setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    if (send(socket.get(), opening.data(), opening.size(), MSG_NOSIGNAL) < 0) _exit(errno == EPIPE ? 0 : 5);
    char byte;
    const ssize_t n = recv(socket.get(), &byte, 1, 0);
    _exit(n == 0 || (n < 0 && errno == ECONNRESET) ? 0 : 6);
  }
  int ended = -1;
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  ASSERT_TRUE(WIFEXITED(ended));
  EXPECT_EQ(WEXITSTATUS(ended), 0);
  ASSERT_NO_FATAL_FAILURE(GreetedLocally()) << "this user is";
}

// The same port by both protocols.
class NodeBulkTest : public NodeTest {
 protected:
  std::unique_ptr<Peer> Greeted(int receive_bytes = 0) const {
    auto peer = std::make_unique<Peer>(ConnectTo(server_->endpoint().port, receive_bytes));
    peer->Greet();
    return peer;
  }

  static std::vector<std::pair<uint32_t, uint32_t>> SlabOrder(const Fetched& fetched) {
    std::vector<std::pair<uint32_t, uint32_t>> order;
    for (const Fetched::Part& part : fetched.parts) {
      if (part.offset == 0) order.emplace_back(part.chunk, part.slab);
    }
    return order;
  }
};

TEST_F(NodeBulkTest, BothProtocolsDeliverTheSame) {
  store_options_.arena = SharedArena::Create(16 * kMiB).value();
  StartNode();
  std::vector<Chunk> chunks = MakeChunks(6, 100);
  MustStore({chunks[0], chunks[1], chunks[3], chunks[5]});
  const std::unique_ptr<Peer> by_tcp = Greeted();
  Peer locally(ConnectToLocal(by_tcp->welcome().local_socket()));
  locally.Greet();
  for (const bool layer_major : {false, true}) {
    for (const auto& [begin, end] : {std::pair{0u, 0u}, std::pair{1u, 3u}, std::pair{3u, 4u}, std::pair{2u, 100u}}) {
      SCOPED_TRACE(::testing::Message() << "layers " << begin << " to " << end << (layer_major ? ", by layers" : ""));
      v1::FetchRequest request = FetchRequestFor(chunks);
      request.set_layer_begin(begin);
      request.set_layer_end(end);
      if (layer_major) request.set_order(v1::FetchRequest::ORDER_LAYER_MAJOR);
      const Fetched by_grpc = Fetch(request);
      for (Peer* const peer : {by_tcp.get(), &locally}) {
        const Fetched by_bulk = peer->Fetch(request);
        EXPECT_EQ(by_bulk.status.error_code(), by_grpc.status.error_code());
        EXPECT_EQ(SlabOrder(by_bulk), SlabOrder(by_grpc));
        ASSERT_EQ(by_bulk.chunks.size(), by_grpc.chunks.size());
        for (const auto& [index, chunk] : by_grpc.chunks) {
          const Fetched::OfChunk& other = by_bulk.chunks.at(index);
          EXPECT_TRUE(other.slabs == chunk.slabs) << index;
          ASSERT_EQ(other.results.size(), chunk.results.size()) << index;
          for (size_t i = 0; i < chunk.results.size(); ++i) {
            EXPECT_EQ(other.results[i].SerializeAsString(), chunk.results[i].SerializeAsString());
          }
        }
      }
    }
  }
  EXPECT_GT(locally.lent(), 0u);
}

TEST_F(NodeBulkTest, Http2AndBulkShareThePort) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  const std::unique_ptr<Peer> peer = Greeted();
  EXPECT_EQ(peer->Store(chunks).status().code(), 0);
  EXPECT_EQ(Stats().memory().chunks(), 2u);
  EXPECT_EQ(Gauge("kdn_node_bulk_connections"), 1.0);
  ExpectWhole(Fetch(FetchRequestFor(chunks)), 1, chunks[1]);
}

TEST_F(NodeBulkTest, WhatIsNeitherIsClosed) {
  StartNode();
  for (const std::string& first : {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100, '\0')}) {
    BulkWire peer(ConnectTo(server_->endpoint().port));
    peer.Send(first);
    std::string said;
    for (char byte; peer.ReadExactly(&byte, 1);) said += byte;  // gRPC says why, in its own way
    EXPECT_LT(said.size(), 1000u);
  }
  EXPECT_EQ(Stats().memory().chunks(), 0u);
}

TEST_F(NodeBulkTest, StopEndsSlowFetchesAndHalfUploads) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(12, kLargeTokens);
  EXPECT_EQ(Greeted()->Store(chunks).status().code(), 0);
  const std::unique_ptr<Peer> slow = Greeted(/*receive_bytes=*/64 << 10);
  ASSERT_TRUE(slow->wire().SendFrame(BulkType::kCall, FetchCallFor(FetchRequestFor(chunks))));
  const std::unique_ptr<Peer> storing = Greeted();
  ASSERT_TRUE(storing->wire().SendFrame(BulkType::kCall, StoreCallFor(1)));
  ASSERT_TRUE(storing->wire().SendRaw(BulkType::kChunk, BeginOf(chunks[0]).SerializeAsString(),
                                      testing::BytesOf(chunks[0]).size()));
  ASSERT_TRUE(Eventually([this] { return Gauge("kdn_node_fetch_bytes") > 0 && Gauge("kdn_node_upload_bytes") > 0; }));
  stub_.reset();
  server_->Stop(absl::Milliseconds(50));
  while (slow->wire().Read().has_value()) {
  }
  EXPECT_TRUE(storing->wire().Ends());
}

}  // namespace
}  // namespace kdn
