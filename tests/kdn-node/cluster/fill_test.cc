// Filling partitions: from whom, in what order, and when they are filled.
#include "kdn-node/cluster/fill_plan.h"
#include "kdn-node/cluster/filler.h"
#include "tests/kdn-node/cluster/member_test.h"

namespace kdn {
namespace {

class FillPlanTest : public ::testing::Test {
 protected:
  // The sources that are read, in order, until there is nothing left to do; time goes on where it has to.
  std::vector<NodeSlot> ReadAll() {
    std::vector<NodeSlot> order;
    for (int i = 0; i < 20; ++i) {
      const auto task = plan_.Next(now_);
      if (!task.has_value()) {
        now_ += std::chrono::seconds(1);
        continue;
      }
      EXPECT_EQ(task->partitions.size(), 16u);
      if (!task->second_look) order.push_back(task->source);
      plan_.Done(*task, now_);
    }
    return order;
  }
  bool AllFilled() const { return plan_.Filled().size() == 16; }

  FillPlan plan_;
  FillPlan::Time now_{};
};

TEST_F(FillPlanTest, ReadsSettledOwnersThenFormerOnesThenThoseThatFillThemselves) {
  const Move move = {.filling = {0, 2}, .leaving = {3, 4}, .partial = {3}};
  plan_.Update(*MakeTopology(1, 5, {0, 1, 2}, move), 0, now_);
  EXPECT_TRUE(plan_.Filled().empty());
  EXPECT_EQ(ReadAll(), (std::vector<NodeSlot>{1, 4, 3, 2}));
  EXPECT_TRUE(AllFilled());
}

TEST_F(FillPlanTest, LooksOnceMoreAtThoseThatHaveAllBeforeItReports) {
  plan_.Update(*MakeTopology(1, 3, {0, 1}, {.filling = {0}, .leaving = {2}}), 0, now_);
  for (int i = 0; i < 2; ++i) plan_.Done(plan_.Next(now_).value(), now_);
  EXPECT_EQ(plan_.Next(now_), std::nullopt) << "too early";
  EXPECT_TRUE(plan_.Filled().empty());
  now_ += std::chrono::milliseconds(999);
  EXPECT_FALSE(plan_.Next(now_).has_value());
  now_ += std::chrono::milliseconds(1);
  for (int i = 0; i < 2; ++i) {
    const auto task = plan_.Next(now_);
    ASSERT_TRUE(task.has_value());
    EXPECT_TRUE(task->second_look);
    EXPECT_TRUE(plan_.Filled().empty());
    plan_.Done(*task, now_);
  }
  EXPECT_TRUE(AllFilled());
}

TEST_F(FillPlanTest, ASourceThatFailsRestsAndTheOthersAreReadMeanwhile) {
  plan_.Update(*MakeTopology(1, 3, {0, 1, 2}, {.filling = {0}}), 0, now_);
  const FillPlan::Task first = plan_.Next(now_).value();
  plan_.Failed(first, now_);
  const FillPlan::Task second = plan_.Next(now_).value();
  EXPECT_NE(second.source, first.source);
  plan_.Done(second, now_);
  EXPECT_EQ(plan_.Next(now_), std::nullopt);
  now_ += std::chrono::milliseconds(250);
  EXPECT_EQ(plan_.Next(now_).value().source, first.source);
  plan_.Failed(first, now_);
  now_ += std::chrono::milliseconds(250);
  EXPECT_EQ(plan_.Next(now_), std::nullopt) << "it rests for longer each time";
  now_ += std::chrono::milliseconds(250);
  EXPECT_TRUE(plan_.Next(now_).has_value());
  EXPECT_TRUE(plan_.Filled().empty()) << "a source that is up was never read";
}

TEST_F(FillPlanTest, WithoutOtherHoldersItIsFilledAtOnce) {
  plan_.Update(*MakeTopology(1, 3, {0}, {.filling = {0}}), 0, now_);
  EXPECT_TRUE(AllFilled());
}

TEST_F(FillPlanTest, WaitsWhileNoneOfThoseThatShouldHaveAllIsUp) {
  const auto with_b = [](NodeState state) { return [=](TopologyParts& parts) { parts.nodes[1].state = state; }; };
  // b was the only one that is not filling; what it alone holds must not be given up.
  const Move move = {.filling = {0, 2}};
  plan_.Update(*MakeTopology(1, 3, {0, 1, 2}, move, with_b(NodeState::kDown)), 0, now_);
  EXPECT_EQ(ReadAll(), (std::vector<NodeSlot>{2})) << "others are read meanwhile";
  EXPECT_TRUE(plan_.Filled().empty());
  // It is back, and has missed stores: now nobody has all, and all are read.
  plan_.Update(*MakeTopology(2, 3, {0, 1, 2}, {.filling = {0, 1, 2}}), 0, now_);
  EXPECT_EQ(ReadAll(), (std::vector<NodeSlot>{1})) << "what was read stays so";
  EXPECT_TRUE(AllFilled());
}

TEST_F(FillPlanTest, WaitsWhileAllOthersAreDownAndGoesOnWhenTheyAreGone) {
  const auto down = [](TopologyParts& parts) { parts.nodes[1].state = NodeState::kDown; };
  plan_.Update(*MakeTopology(1, 2, {0, 1}, {.filling = {0, 1}}, down), 0, now_);
  EXPECT_TRUE(ReadAll().empty());
  EXPECT_TRUE(plan_.Filled().empty());
  plan_.Update(*MakeTopology(2, 2, {0}, {.filling = {0}}, down), 0, now_);
  EXPECT_TRUE(AllFilled());
}

TEST_F(FillPlanTest, OtherHoldersMeanASecondLookAgain) {
  plan_.Update(*MakeTopology(1, 3, {0, 1}, {.filling = {0}}), 0, now_);
  ReadAll();
  ASSERT_TRUE(AllFilled());
  plan_.Update(*MakeTopology(2, 3, {0, 1}, {.filling = {0}}), 0, now_);
  EXPECT_TRUE(AllFilled()) << "nothing has changed for these partitions";
  plan_.Update(*MakeTopology(3, 3, {0, 1}, {.filling = {0}, .leaving = {2}}), 0, now_);
  EXPECT_TRUE(plan_.Filled().empty());
  EXPECT_EQ(ReadAll(), (std::vector<NodeSlot>{2}));
  EXPECT_TRUE(AllFilled());
  plan_.Update(*MakeTopology(4, 3, {0, 1}), 0, now_);
  EXPECT_EQ(plan_.filling(), 0u);
}

class FillerTest : public MemberTest {
 protected:
  // Calls the filler as often as it takes for a moment to pass.
  void Work(Filler& filler, absl::Duration passing = absl::Seconds(5)) {
    const SteadyClock::Point end = clock_.Now() + absl::ToChronoNanoseconds(passing);
    while (clock_.Now() < end) pauses_.Until(filler.Step());
  }

  int told_ = 0;
  Filler filler_{identity_, topology_, peers_, sync_, pauses_, {}, [this] { ++told_; }};
};

TEST_F(FillerTest, BringsWhatTheOwnersHoldAndThenReportsIt) {
  const std::vector<Chunk> chunks = MakeSome(40);
  Put(*PeerAt(1).store, chunks);
  topology_.Set(MakeTopology(5, 2, {0, 1}, {.filling = {0}}));
  filler_.Step();
  for (const Chunk& chunk : chunks) EXPECT_TRUE(HasWhole(chunk));
  EXPECT_TRUE(filler_.Filled().partitions.empty());
  Work(filler_);
  EXPECT_EQ(filler_.Filled().partitions.size(), 16u);
  EXPECT_EQ(filler_.Filled().epoch, 5u);
  EXPECT_EQ(told_, 1);
  EXPECT_EQ(PeerAt(1).hooks().fetched_chunks, 40) << "each once";
  EXPECT_EQ(Metric("kdn_cluster_moved_chunks_total", "fill"), 40);
  EXPECT_EQ(Metric("kdn_cluster_moved_bytes_total", "fill"),
            40.0 * static_cast<double>(chunks[0].manifest->EncodedBytes()));
  EXPECT_EQ(Metric("kdn_cluster_moving_bytes_left"), 0);
  topology_.Set(MakeTopology(6, 2, {0, 1}));
  filler_.Step();
  EXPECT_TRUE(filler_.Filled().partitions.empty()) << "the topology knows";
}

TEST_F(FillerTest, WhatIsStoredToTheOldOwnerAloneMeanwhileIsFoundByTheSecondLook) {
  Put(*PeerAt(1).store, MakeSome(5));
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  filler_.Step();
  const Chunk late = Make(99);
  Put(*PeerAt(1).store, {late});
  Work(filler_);
  EXPECT_TRUE(HasWhole(late));
  EXPECT_EQ(filler_.Filled().partitions.size(), 16u);
}

TEST_F(FillerTest, GoesOnWithAnotherSourceWhereOneDies) {
  const std::vector<Chunk> chunks = MakeSome(30);
  Put(*PeerAt(1).store, chunks);
  Put(*PeerAt(2).store, chunks);
  PeerAt(1).hooks().break_after = 7;
  topology_.Set(MakeTopology(1, 3, {0, 1, 2}, {.filling = {0}}));
  Work(filler_);
  for (const Chunk& chunk : chunks) EXPECT_TRUE(HasWhole(chunk));
  EXPECT_EQ(PeerAt(1).hooks().fetched_chunks, 7);
  EXPECT_EQ(PeerAt(2).hooks().fetched_chunks, 23) << "what came from the first is not fetched again";
  EXPECT_EQ(filler_.Filled().partitions.size(), 16u) << "what the first one has, this node has as well";
}

TEST_F(FillerTest, DoesNotReportWhatASourceThatIsUpWasNotReadFor) {
  Put(*PeerAt(1).store, MakeSome(3));
  PeerAt(2).away = true;
  topology_.Set(MakeTopology(1, 3, {0, 1, 2}, {.filling = {0}}));
  Work(filler_, absl::Seconds(30));
  EXPECT_TRUE(filler_.Filled().partitions.empty());
  PeerAt(2).away = false;
  Work(filler_, absl::Seconds(30));
  EXPECT_EQ(filler_.Filled().partitions.size(), 16u);
}

TEST_F(FillerTest, BytesThatFailTheirChecksumAreNeverStoredAndComeFromElsewhere) {
  const std::vector<Chunk> chunks = MakeSome(10);
  Put(*PeerAt(1).store, chunks);
  Put(*PeerAt(2).store, chunks);
  const ChunkKey bad = chunks[4].manifest->key;
  PeerAt(1).hooks().on_part = [bad](const ChunkKey& key, std::vector<uint8_t>& bytes) {
    if (key == bad) bytes[bytes.size() / 2] ^= 1;
  };
  const Move move = {.filling = {0}};
  topology_.Set(MakeTopology(1, 2, {0, 1}, move));
  Work(filler_);
  EXPECT_FALSE(Has(*store_, chunks[4]));
  EXPECT_EQ(store_->Keys().size(), 9u);
  EXPECT_EQ(Metric("kdn_cluster_verify_failures_total"), 2) << "tried once, and once at the second look";
  EXPECT_EQ(filler_.Filled().partitions.size(), 16u) << "what no source can give holds nobody up";
  topology_.Set(MakeTopology(2, 3, {0, 1, 2}, move));
  Work(filler_);
  for (const Chunk& chunk : chunks) EXPECT_TRUE(HasWhole(chunk));
}

TEST_F(FillerTest, KeepsHowLongAChunkIsToBeKept) {
  Chunk chunk = Make(1);
  chunk.retention = {.expires = absl::Now() + absl::Hours(1), .lossy_allowed = true};
  Put(*PeerAt(1).store, {chunk});
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  filler_.Step();
  const auto held = store_->Describe(chunk.manifest->key);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_TRUE(held->retention.lossy_allowed);
  EXPECT_EQ(held->retention.expires, chunk.retention.expires);
}

TEST_F(FillerTest, ListsThatAreLongerThanWhatIsPulledAtATimeAreReadToTheirEnd) {
  const std::vector<Chunk> chunks = MakeSome(50);
  Put(*PeerAt(1).store, chunks);
  PartitionSync sync(indexes_, puller_, pauses_, /*max_missing=*/8);
  Filler filler(identity_, topology_, peers_, sync, pauses_, {}, [] {});
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  Work(filler);
  EXPECT_EQ(store_->Keys().size(), 50u);
  EXPECT_EQ(PeerAt(1).hooks().fetched_chunks, 50);
  EXPECT_EQ(filler.Filled().partitions.size(), 16u);
}

TEST_F(FillerTest, ATopologyThatDoesNotMeanThisProcessIsNotGoneBy) {
  Put(*PeerAt(1).store, MakeSome(3));
  const Move move = {.filling = {0}};
  topology_.Set(MakeTopology(1, 2, {0, 1}, move, [](TopologyParts& parts) { parts.cluster_id = 43; }));
  Work(filler_);
  topology_.Set(MakeTopology(1, 2, {0, 1}, move, [](TopologyParts& parts) { parts.nodes[0].incarnation = 8; }));
  Work(filler_);
  topology_.Set(
      MakeTopology(1, 2, {0, 1}, move, [](TopologyParts& parts) { parts.nodes[0].state = NodeState::kDown; }));
  Work(filler_);
  EXPECT_TRUE(store_->Keys().empty());
  EXPECT_TRUE(filler_.Filled().partitions.empty());
}

TEST_F(FillerTest, AnotherIncarnationReadsAllAnew) {
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  Work(filler_);
  ASSERT_EQ(filler_.Filled().partitions.size(), 16u);
  identity_.set_incarnation(8);
  filler_.Step();
  EXPECT_TRUE(filler_.Filled().partitions.empty());
  const Chunk missed = Make(1);
  Put(*PeerAt(1).store, {missed});
  topology_.Set(
      MakeTopology(2, 2, {0, 1}, {.filling = {0}}, [](TopologyParts& parts) { parts.nodes[0].incarnation = 8; }));
  Work(filler_);
  EXPECT_TRUE(HasWhole(missed));
  EXPECT_EQ(filler_.Filled().epoch, 2u);
}

// A node with a disk, and another that has one as well.
class DurableFillerTest : public FillerTest {
 protected:
  DurableFillerTest() {
    TieredStoreOptions options = DefaultOptions();
    options.disks = {{.path = disk_.path(), .bytes = uint64_t{256} << 20}};
    options.memory_bytes = uint64_t{1} << 20;
    durable_ = TieredStore::Open(options).value();
    options.disks[0].path = their_disk_.path();
    fakes_["b:1"] = std::make_shared<FakePeer>(options);
  }

  testing::TempDir disk_;
  testing::TempDir their_disk_;
  std::unique_ptr<TieredStore> durable_;
};

TEST_F(DurableFillerTest, WhatIsDurableThereIsDurableHere) {
  const std::vector<Chunk> chunks = MakeSome(10);
  for (const Chunk& chunk : chunks) ASSERT_TRUE(PeerAt(1).store->Put(chunk, Ack::kDurable).ok());
  PartitionIndexCache indexes(*durable_, clock_);
  ChunkPuller puller(*durable_, metrics_, limit_, pauses_, {.parallel = 3, .batch_chunks = 2});
  PartitionSync sync(indexes, puller, pauses_);
  Filler filler(identity_, topology_, peers_, sync, pauses_, {}, [] {});
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  filler.Step();
  durable_.reset();
  TieredStoreOptions options = DefaultOptions();
  options.disks = {{.path = disk_.path(), .bytes = uint64_t{256} << 20}};
  const auto reopened = TieredStore::Open(options).value();
  for (const Chunk& chunk : chunks) {
    const auto held = reopened->Describe(chunk.manifest->key);
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_TRUE(held->on_disk);
    EXPECT_EQ(*held->manifest, *chunk.manifest);
  }
}

TEST_F(FillerTest, MovesAtTheRateThatItMay) {
  const std::vector<Chunk> chunks = MakeSome(20);
  const uint64_t bytes = chunks[0].manifest->EncodedBytes();
  Put(*PeerAt(1).store, chunks);
  RateLimit limit(bytes, pauses_);  // one chunk a second
  ChunkPuller puller(*store_, metrics_, limit, pauses_, {.parallel = 1, .batch_chunks = 1});
  PartitionSync sync(indexes_, puller, pauses_);
  Filler filler(identity_, topology_, peers_, sync, pauses_, {}, [] {});
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  const SteadyClock::Point begun = clock_.Now();
  filler.Step();
  EXPECT_EQ(store_->Keys().size(), 20u);
  const double seconds = absl::ToDoubleSeconds(absl::FromChrono(clock_.Now() - begun));
  EXPECT_GE(seconds, 18.8);
  EXPECT_LE(seconds, 19.1);
}

TEST_F(FillerTest, StopsInTheMiddleWhenTheNodeDoes) {
  Put(*PeerAt(1).store, MakeSome(20));
  PeerAt(1).hooks().on_part = [this](const ChunkKey&, std::vector<uint8_t>&) { pauses_.Stop(); };
  topology_.Set(MakeTopology(1, 2, {0, 1}, {.filling = {0}}));
  filler_.Step();
  EXPECT_LE(PeerAt(1).hooks().fetched_chunks, 1);
  EXPECT_TRUE(filler_.Filled().partitions.empty());
}

}  // namespace
}  // namespace kdn
