#include <atomic>
#include <set>

#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class NodeFetchTest : public NodeTest {
 protected:
  static grpc::StatusCode Refused(const Fetched& fetched, const char* names) {
    EXPECT_THAT(fetched.status.error_message(), HasSubstr(names));
    EXPECT_TRUE(fetched.chunks.empty());
    return fetched.status.error_code();
  }

  double RecodedTo(const std::string& codec) {
    for (const prometheus::MetricFamily& family : server_->metrics().Collect()) {
      if (family.name != "kdn_node_recoded_bytes_total") continue;
      for (const prometheus::ClientMetric& metric : family.metric) {
        if (metric.label.front().value == codec) return metric.counter.value;
      }
    }
    ADD_FAILURE() << "no series for " << codec;
    return 0;
  }

  double SentBytes() {
    for (const prometheus::MetricFamily& family : server_->metrics().Collect()) {
      if (family.name == "kdn_node_sent_bytes_total") return family.metric.front().counter.value;
    }
    ADD_FAILURE() << "no such metric";
    return 0;
  }

  static uint32_t LayerOf(const Chunk& chunk, uint32_t slab) { return chunk.manifest->slabs[slab].layer; }
};

TEST_F(NodeFetchTest, DeliversEveryByteInFramesOfTheSizeAskedFor) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(5, /*tokens=*/1000);  // slabs of 64,000 bytes
  MustStore(chunks);
  for (const auto order : {v1::FetchRequest::ORDER_CHUNK_MAJOR, v1::FetchRequest::ORDER_LAYER_MAJOR}) {
    v1::FetchRequest request = FetchRequestFor(chunks);
    request.set_order(order);
    request.set_max_frame_bytes(wire::kMinFrameBytes);
    const Fetched fetched = Fetch(request);
    ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    for (uint32_t i = 0; i < chunks.size(); ++i) {
      ExpectWhole(fetched, i, chunks[i]);
      EXPECT_EQ(fetched.chunks.at(i).results[0].tier(), v1::TIER_MEMORY);
    }
    for (const Fetched::Part& part : fetched.parts) EXPECT_LE(part.bytes, wire::kMinFrameBytes);
  }
}

TEST_F(NodeFetchTest, ASlabOfManyMegabytesSpansManyFrames) {
  StartNode();
  const Chunk chunk = testing::MakeChunk(space(), 1, /*tokens=*/50'000);  // slabs of 3.2 MB
  MustStore({chunk});
  for (const uint32_t frame_bytes : {0u, wire::kMaxFrameBytes, 100'001u}) {
    v1::FetchRequest request = FetchRequestFor({chunk});
    request.set_max_frame_bytes(frame_bytes);
    const Fetched fetched = Fetch(request);
    ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    ExpectWhole(fetched, 0, chunk);
  }
}

TEST_F(NodeFetchTest, JoinedFramesHoldAsManySlabsAsFit) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);  // 8 slabs of 1,024 bytes each
  MustStore(chunks);
  for (const uint32_t frame_bytes : {0u, wire::kMinFrameBytes}) {
    v1::FetchRequest request = FetchRequestFor(chunks);
    request.set_join_frames(true);
    request.set_max_frame_bytes(frame_bytes);
    request.set_layer_begin(1);
    grpc::ClientContext context;
    const auto reader = stub_->Fetch(&context, request);
    std::map<uint32_t, std::string> data;
    std::map<uint32_t, int> frames;
    for (v1::FetchFrame frame; reader->Read(&frame);) {
      if (frames[frame.chunk()]++ == 0) {
        EXPECT_EQ(frame.result().miss(), v1::MISS_REASON_UNSPECIFIED);
        EXPECT_EQ(frame.slab(), 2u);
        EXPECT_EQ(frame.offset(), 0u);
      } else {
        EXPECT_FALSE(frame.has_result());
        const size_t before = data[frame.chunk()].size();
        EXPECT_EQ(frame.slab(), 2 + before / 1024);
        EXPECT_EQ(frame.offset(), before % 1024);
      }
      data[frame.chunk()] += frame.data();
      if (frame_bytes != 0) {
        EXPECT_LE(frame.data().size(), frame_bytes);
      }
    }
    ASSERT_TRUE(reader->Finish().ok());
    ASSERT_EQ(data.size(), 3u);
    for (uint32_t i = 0; i < chunks.size(); ++i) {
      std::string wanted;
      for (size_t slab = 2; slab < chunks[i].slabs.size(); ++slab) wanted += AsStringView(chunks[i].slabs[slab].span());
      EXPECT_TRUE(data[i] == wanted);
      EXPECT_EQ(frames[i], frame_bytes == 0 ? 1 : 2);
    }
  }
}

TEST_F(NodeFetchTest, ChunksComeOneAfterAnotherOrLayersDo) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(4);
  MustStore(chunks);
  v1::FetchRequest request = FetchRequestFor(chunks);
  const Fetched by_chunk = Fetch(request);
  EXPECT_TRUE(std::ranges::is_sorted(by_chunk.parts, {}, [&](const Fetched::Part& part) {
    return std::tuple(part.chunk, LayerOf(chunks[part.chunk], part.slab), part.slab);
  }));
  request.set_order(v1::FetchRequest::ORDER_LAYER_MAJOR);
  const Fetched by_layer = Fetch(request);
  EXPECT_TRUE(std::ranges::is_sorted(by_layer.parts, {}, [&](const Fetched::Part& part) {
    return std::tuple(LayerOf(chunks[part.chunk], part.slab), part.chunk, part.slab);
  }));
  EXPECT_EQ(by_layer.parts.size(), by_chunk.parts.size());
}

TEST_F(NodeFetchTest, ALayerRangeBringsThoseLayersAlone) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  for (const auto order : {v1::FetchRequest::ORDER_CHUNK_MAJOR, v1::FetchRequest::ORDER_LAYER_MAJOR}) {
    const std::tuple<uint32_t, uint32_t, std::set<uint32_t>> kCases[] = {
        {1, 3, {2, 3, 4, 5}}, {3, 0, {6, 7}}, {2, 1000, {4, 5, 6, 7}}, {4, 9, {}}};
    for (const auto& [begin, end, slabs] : kCases) {
      v1::FetchRequest request = FetchRequestFor(chunks);
      request.set_layer_begin(begin);
      request.set_layer_end(end);
      request.set_order(order);
      const Fetched fetched = Fetch(request);
      ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
      for (uint32_t i = 0; i < chunks.size(); ++i) {
        ASSERT_EQ(fetched.chunks.at(i).results.size(), 1u);
        EXPECT_EQ(fetched.chunks.at(i).results[0].miss(), v1::MISS_REASON_UNSPECIFIED);
        std::set<uint32_t> got;
        for (const auto& [slab, bytes] : fetched.chunks.at(i).slabs) {
          got.insert(slab);
          EXPECT_TRUE(bytes == AsStringView(chunks[i].slabs[slab].span()));
        }
        EXPECT_EQ(got, slabs);
      }
    }
  }
}

TEST_F(NodeFetchTest, OneMissingChunkNeverFailsTheRest) {
  StartNode();
  std::vector<Chunk> chunks = MakeChunks(3);
  MustStore({chunks[0], chunks[2]});
  const Chunk foreign = testing::MakeChunk(testing::MakeSpace("another/model"), 1);
  const Chunk rough = testing::WithFidelity(testing::MakeChunk(space(), 9), Fidelity::kApproximate);
  MustStore({foreign, rough});
  chunks.push_back(foreign);
  chunks.push_back(rough);
  for (const auto order : {v1::FetchRequest::ORDER_CHUNK_MAJOR, v1::FetchRequest::ORDER_LAYER_MAJOR}) {
    v1::FetchRequest request = FetchRequestFor(chunks);
    request.set_order(order);
    const Fetched fetched = Fetch(request);
    ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    ExpectWhole(fetched, 0, chunks[0]);
    ExpectWhole(fetched, 2, chunks[2]);
    for (const auto& [index, reason] : {std::pair{1u, v1::MISS_REASON_NOT_FOUND},
                                        {3u, v1::MISS_REASON_WRONG_SPACE},
                                        {4u, v1::MISS_REASON_FIDELITY}}) {
      const Fetched::OfChunk& missed = fetched.chunks.at(index);
      ASSERT_EQ(missed.results.size(), 1u);
      EXPECT_EQ(missed.results[0].miss(), reason);
      EXPECT_NE(missed.results[0].detail(), "");
      EXPECT_EQ(missed.results[0].manifest(), "");
      EXPECT_TRUE(missed.slabs.empty());
    }
  }
  const v1::StatsResponse stats = Stats();
  EXPECT_EQ(stats.fetch_results().at("none"), 4u);
  EXPECT_EQ(stats.fetch_results().at("not_found"), 2u);
  EXPECT_EQ(stats.fetch_results().at("wrong_space"), 2u);
  EXPECT_EQ(stats.fetch_results().at("fidelity"), 2u);
}

TEST_F(NodeFetchTest, MalformedCallsAreRefusedByName) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(1);
  v1::FetchRequest request = FetchRequestFor(chunks);
  request.set_space_id("short");
  EXPECT_EQ(Refused(Fetch(request), "space_id has 5 bytes"), grpc::StatusCode::INVALID_ARGUMENT);
  request = FetchRequestFor(chunks);
  request.set_keys(std::string(33, 'k'));
  EXPECT_EQ(Refused(Fetch(request), "keys has 33 bytes"), grpc::StatusCode::INVALID_ARGUMENT);
  request = FetchRequestFor(chunks);
  request.set_layer_begin(2);
  request.set_layer_end(2);
  EXPECT_EQ(Refused(Fetch(request), "are empty"), grpc::StatusCode::INVALID_ARGUMENT);
  request = FetchRequestFor(chunks);
  request.mutable_heads()->set_begin(2);
  request.mutable_heads()->set_end(2);
  EXPECT_EQ(Refused(Fetch(request), "heads [2, 2) are empty"), grpc::StatusCode::INVALID_ARGUMENT);
  request = FetchRequestFor({});
  EXPECT_TRUE(Fetch(request).status.ok());  // nothing asked for, nothing sent
}

TEST_F(NodeFetchTest, AChunkThatGoesMidwayGetsASecondResultAndTheRestGoesOn) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks);
  const ChunkKey doomed = chunks[1].manifest->key;
  store_->before_fetch = [&](const ChunkKey& key, LayerRange layers) {
    if (key == doomed && layers.begin == 2) (void)store_->Delete(chunks[1].manifest->space, doomed);
  };
  v1::FetchRequest request = FetchRequestFor(chunks);
  request.set_order(v1::FetchRequest::ORDER_LAYER_MAJOR);
  const Fetched fetched = Fetch(request);
  ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  ExpectWhole(fetched, 0, chunks[0]);
  ExpectWhole(fetched, 2, chunks[2]);
  const Fetched::OfChunk& gone = fetched.chunks.at(1);
  ASSERT_EQ(gone.results.size(), 2u);
  EXPECT_EQ(gone.results[1].miss(), v1::MISS_REASON_NOT_FOUND);
  EXPECT_EQ(gone.slabs.size(), 4u);  // layers 0 and 1
  EXPECT_EQ(Stats().fetch_results().at("not_found"), 1u);
  EXPECT_EQ(Stats().fetch_results().at("none"), 2u);
}

TEST_F(NodeFetchTest, ReadsAheadNoFurtherThanItsWindow) {
  server_options_.service.fetch_window_bytes = 5 << 20;
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(12, /*tokens=*/4096);  // 2 MiB each
  MustStore(chunks);
  const double chunk_bytes = static_cast<double>(chunks[0].manifest->EncodedBytes());
  std::atomic<double> asked_for = 0;
  // Whatever the reader does, what was read and not sent fits into the window.
  store_->before_fetch = [&](const ChunkKey&, LayerRange) {
    const double read = asked_for.load() + chunk_bytes;
    asked_for = read;
    EXPECT_LE(read - Counter("kdn_node_sent_bytes_total"), 5 << 20);
  };
  grpc::ClientContext context;
  const auto reader = stub_->Fetch(&context, FetchRequestFor(chunks));
  // Nobody reads: the node reads ahead to the window, and no further.
  ASSERT_TRUE(Eventually([&] { return asked_for.load() >= 2 * chunk_bytes; }));
  Fetched fetched;
  v1::FetchFrame frame;
  while (reader->Read(&frame)) fetched.Take(frame);
  EXPECT_TRUE(reader->Finish().ok());
  for (uint32_t i = 0; i < chunks.size(); ++i) ExpectWhole(fetched, i, chunks[i]);
  EXPECT_TRUE(Eventually([&] { return Gauge("kdn_node_fetch_bytes") == 0; }));
}

TEST_F(NodeFetchTest, GoesOnInPartsWhenTheBudgetOfAllFetchesIsShort) {
  server_options_.service.max_fetch_bytes = 8 << 20;
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2, /*tokens=*/50'000);  // 25.6 MB each, 6.4 MB a layer
  MustStore(chunks);
  std::atomic<int> reads = 0;
  store_->before_fetch = [&](const ChunkKey&, LayerRange layers) {
    ++reads;
    EXPECT_TRUE(layers.end == layers.begin + 1 || layers.begin == 3)
        << "layers " << layers.begin << " to " << layers.end;
  };
  const Fetched fetched = Fetch(FetchRequestFor(chunks));
  ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  ExpectWhole(fetched, 0, chunks[0]);
  ExpectWhole(fetched, 1, chunks[1]);
  EXPECT_EQ(reads, 8);
}

TEST_F(NodeFetchTest, IsRefusedWhenOthersHoldTheWholeBudget) {
  server_options_.service.max_fetch_bytes = 8 << 20;
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(1);
  MustStore(chunks);
  Gate gate;
  store_->before_fetch = [&](const ChunkKey&, LayerRange) { gate.Pass(); };
  std::thread first([&] { EXPECT_TRUE(Fetch(FetchRequestFor(chunks)).status.ok()); });
  gate.AwaitArrival();
  EXPECT_EQ(Refused(Fetch(FetchRequestFor(chunks)), "--max-fetch-bytes"), grpc::StatusCode::RESOURCE_EXHAUSTED);
  gate.Open();
  first.join();
}

TEST_F(NodeFetchTest, ACancelledFetchStopsReadingAndGivesBackWhatItHeld) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(20);
  MustStore(chunks);
  Gate gate;
  std::atomic<int> reads = 0;
  store_->before_fetch = [&](const ChunkKey&, LayerRange) {
    ++reads;
    gate.Pass();
  };
  grpc::ClientContext context;
  const auto reader = stub_->Fetch(&context, FetchRequestFor(chunks));
  gate.AwaitArrival();
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The reservation goes when the node learns of it, though a disk still keeps the worker.
  EXPECT_TRUE(Eventually([&] { return Gauge("kdn_node_fetch_bytes") == 0; }));
  gate.Open();
  EXPECT_TRUE(Eventually([&] { return Stats().fetch_results().contains("cancelled"); }));
  EXPECT_EQ(reads, 1);
  EXPECT_EQ(Stats().fetch_results().at("cancelled"), 19u);
}

TEST_F(NodeFetchTest, ADeadlineEndsAFetchThatADiskHoldsUp) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks);
  Gate gate;
  store_->before_fetch = [&](const ChunkKey&, LayerRange) { gate.Pass(); };
  grpc::ClientContext context;
  const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(500);  // enough to reach the gate
  context.set_deadline(deadline);
  const auto reader = stub_->Fetch(&context, FetchRequestFor(chunks));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return Gauge("kdn_node_fetch_bytes") == 0; }));
  // The node counts from when the call came, and in coarser units: to it the deadline is a little later.
  EXPECT_TRUE(Eventually([&] { return std::chrono::system_clock::now() > deadline + std::chrono::milliseconds(250); }));
  gate.Open();
  EXPECT_TRUE(Eventually([&] { return Stats().fetch_results().contains("deadline"); }));
}

TEST_F(NodeFetchTest, ManyClientsAtOnceGetWhatTheyAskedFor) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(8, /*tokens=*/500);
  MustStore(chunks);
  std::vector<std::thread> clients;
  for (uint32_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (int round = 0; round < 5; ++round) {
        v1::FetchRequest request = FetchRequestFor(chunks);
        request.set_order(client % 2 == 0 ? v1::FetchRequest::ORDER_CHUNK_MAJOR : v1::FetchRequest::ORDER_LAYER_MAJOR);
        request.set_max_frame_bytes(wire::kMinFrameBytes << (client % 4));
        const Fetched fetched = Fetch(request);
        ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
        for (uint32_t i = 0; i < chunks.size(); ++i) ExpectWhole(fetched, i, chunks[i]);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(NodeFetchTest, ComesFromDiskAfterARestart) {
  const testing::TempDir disk;
  store_options_.disks = {{.path = disk.path()}};
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(3, /*tokens=*/1000);
  MustStore(chunks, v1::ACK_DURABLE);
  TearDown();
  StartNode();
  Fetched fetched = Fetch(FetchRequestFor(chunks));
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    ExpectWhole(fetched, i, chunks[i]);
    EXPECT_EQ(fetched.chunks.at(i).results[0].tier(), v1::TIER_DISK);
  }
  fetched = Fetch(FetchRequestFor(chunks));
  EXPECT_EQ(fetched.chunks.at(0).results[0].tier(), v1::TIER_MEMORY);  // the first fetch promoted it
}

TEST_F(NodeFetchTest, AWishForACodecIsGrantedAndCounted) {
  StartNode();
  const std::vector<Chunk> chunks = {testing::MakeChunk(space(), 1, /*tokens=*/256, CodecId::kZstd),
                                     testing::MakeChunk(space(), 2, /*tokens=*/256, CodecId::kRaw)};
  MustStore(chunks);
  for (const auto order : {v1::FetchRequest::ORDER_CHUNK_MAJOR, v1::FetchRequest::ORDER_LAYER_MAJOR}) {
    v1::FetchRequest request = FetchRequestFor(chunks);
    request.set_order(order);
    request.set_codec_wish("raw");
    const Fetched fetched = Fetch(request);
    ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    ExpectWhole(fetched, 0, testing::MakeChunk(space(), 1, /*tokens=*/256, CodecId::kRaw));
    ExpectWhole(fetched, 1, chunks[1]);
  }
  // The node counts after the client has its answer.
  const double raw_bytes = 2.0 * static_cast<double>(chunks[1].manifest->RawBytes());
  EXPECT_TRUE(Eventually([&] { return RecodedTo("raw") == raw_bytes; })) << RecodedTo("raw");
  EXPECT_EQ(RecodedTo("zstd"), 0);
}

TEST_F(NodeFetchTest, HalfOfTheHeadsAreHalfOfTheBytesThatAreSent) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);  // of two heads
  MustStore(chunks);
  uint64_t all = 0;
  for (const Chunk& chunk : chunks) all += chunk.manifest->RawBytes();
  double sent = 0;
  for (const auto order : {v1::FetchRequest::ORDER_CHUNK_MAJOR, v1::FetchRequest::ORDER_LAYER_MAJOR}) {
    v1::FetchRequest request = FetchRequestFor(chunks);
    request.set_order(order);
    request.mutable_heads()->set_begin(1);  // to the last
    const Fetched fetched = Fetch(request);
    ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
    uint64_t bytes = 0;
    for (const Fetched::Part& part : fetched.parts) bytes += part.bytes;
    const uint64_t half = all / 2;
    EXPECT_EQ(bytes, half);
    sent += static_cast<double>(half);
    EXPECT_EQ(SentBytes(), sent);
  }
}

TEST_F(NodeFetchTest, ARangeThatIsNoneOfTheHeadsCutsNothing) {
  StartNode();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  v1::FetchRequest request = FetchRequestFor(chunks);
  request.mutable_heads()->set_end(3);
  const Fetched fetched = Fetch(request);
  for (uint32_t i = 0; i < chunks.size(); ++i) ExpectWhole(fetched, i, chunks[i]);
}

TEST_F(NodeFetchTest, ACodecThatThereIsNotIsRefused) {
  StartNode();
  v1::FetchRequest request = FetchRequestFor(MakeChunks(1));
  request.set_codec_wish("lz9");
  EXPECT_EQ(Refused(Fetch(request), "lz9"), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace kdn
