#include "storage/analytics/use_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

UseReport GoodReport() {
  UseReport report = {.description = {.model = "acme/tiny",
                                      .weights_revision = "3f2a",
                                      .adapter = "lora",
                                      .tenant = "blue",
                                      .dtype = "bf16",
                                      .chunk_tokens = 256},
                      .prefilled_tokens = 4096,
                      .prefill_seconds = 1.5};
  report.space.bytes.fill(7);
  double value = 1;
  for (const BlendField& field : kBlendFields) report.blend.*field.value = value++;
  for (double& refused : report.blend.refused) refused = value++;
  return report;
}

TEST(UseReportTest, ARoundTripKeepsEverything) {
  const UseReport report = GoodReport();
  ASSERT_TRUE(CheckUseReport(report).ok()) << CheckUseReport(report);
  const absl::StatusOr<UseReport> back = FromWire(ToWire(report));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->space, report.space);
  EXPECT_EQ(back->description, report.description);
  EXPECT_EQ(back->prefilled_tokens, report.prefilled_tokens);
  EXPECT_EQ(back->prefill_seconds, report.prefill_seconds);
  EXPECT_EQ(back->blend, report.blend);
}

TEST(UseReportTest, WhatIsNoReportIsRefusedByTheNameOfTheField) {
  const v1::ReportUseRequest good = ToWire(GoodReport());
  const auto error = [&](const std::function<void(v1::ReportUseRequest&)>& spoil) {
    v1::ReportUseRequest bad = good;
    spoil(bad);
    const absl::Status status = FromWire(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return MessageOf(status);
  };
  using Request = v1::ReportUseRequest;
  EXPECT_THAT(error([](Request& r) { r.clear_space_id(); }), HasSubstr("space_id"));
  EXPECT_THAT(error([](Request& r) { r.set_space_id("short"); }), HasSubstr("space_id"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_model(std::string(129, 'x')); }), HasSubstr("model"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_tenant("a\nb"); }), HasSubstr("tenant: byte 1"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_adapter("\xe2\x80\xae"); }), HasSubstr("adapter"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_weights_revision(std::string(1, '\0')); }),
              HasSubstr("weights_revision"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_dtype("\x1b[31m"); }), HasSubstr("dtype"));
  EXPECT_THAT(error([](Request& r) { r.mutable_description()->set_chunk_tokens(1 << 20); }), HasSubstr("chunk_tokens"));
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), -1.0, 1e13}) {
    EXPECT_THAT(error([&](Request& r) { r.set_prefilled_tokens(bad); }), HasSubstr("prefilled_tokens"));
    EXPECT_THAT(error([&](Request& r) { r.set_prefill_seconds(bad); }), HasSubstr("prefill_seconds"));
    EXPECT_THAT(error([&](Request& r) { r.mutable_blend()->set_moved_tokens(bad); }), HasSubstr("moved_tokens"));
    EXPECT_THAT(error([&](Request& r) { r.mutable_blend()->set_full_layer_tokens(bad); }),
                HasSubstr("full_layer_tokens"));
    EXPECT_THAT(error([&](Request& r) { r.mutable_blend()->mutable_refused(0)->set_prompts(bad); }),
                HasSubstr("refused"));
  }
  EXPECT_THAT(error([](Request& r) { r.set_prefill_seconds(0); }), HasSubstr("prefill_seconds: 0 for 4096 tokens"));
  EXPECT_THAT(error([](Request& r) { r.set_prefill_seconds(1e-9); }), HasSubstr("tokens a second"));
}

TEST(UseReportTest, ANegativeReasonIsNotMadeUpForByAnother) {
  v1::ReportUseRequest request = ToWire(GoodReport());
  v1::RefusedBlends& less = *request.mutable_blend()->add_refused();
  less.set_reason(v1::BLEND_REFUSAL_NO_PROFILE);
  less.set_prompts(-1);
  EXPECT_THAT(MessageOf(FromWire(request).status()), HasSubstr("refused"));
}

TEST(UseReportTest, AReasonOfANewerEngineCountsAsAFailure) {
  v1::ReportUseRequest request = ToWire(GoodReport());
  v1::RefusedBlends& newer = *request.mutable_blend()->add_refused();
  newer.set_reason(static_cast<v1::BlendRefusal>(99));
  newer.set_prompts(5);
  const absl::StatusOr<UseReport> report = FromWire(request);
  ASSERT_TRUE(report.ok()) << report.status();
  constexpr auto kFailed = static_cast<size_t>(BlendRefusal::kFailed);
  EXPECT_EQ(report->blend.refused[kFailed], GoodReport().blend.refused[kFailed] + 5);
}

TEST(UseReportTest, ADescriptionHasNoSecretsAndAlwaysFits) {
  KvSpace space;
  space.model_id = "m\xc3\xbc\nller/" + std::string(300, 'x');
  space.weights_revision = "rev";
  space.adapter_id = "lora";
  space.tenant_salt = "s3cret-salt";
  const SpaceDescription description = DescriptionOf(space, "blue");
  EXPECT_TRUE(description.model.starts_with("m???ller/xxx"));
  EXPECT_EQ(description.model.size(), kMostDescriptionBytes);
  EXPECT_EQ(description.tenant, "blue");
  EXPECT_EQ(description.dtype, "bf16");
  UseReport report = {.description = description};
  report.space.bytes.fill(1);
  EXPECT_TRUE(CheckUseReport(report).ok()) << CheckUseReport(report);
  EXPECT_EQ(ToWire(report).SerializeAsString().find(space.tenant_salt), std::string::npos);
}

TEST(UseReportTest, RatiosAreOfWhatThereIs) {
  EXPECT_EQ(BlendCounts().ReusedRatio(), 0);
  EXPECT_EQ(BlendCounts().ComputedRatio(), 0);
  const BlendCounts counts = {.prompts = 1,
                              .prompt_tokens = 100,
                              .exact_tokens = 20,
                              .moved_tokens = 40,
                              .fresh_tokens = 40,
                              .computed_layer_tokens = 30,
                              .full_layer_tokens = 120};
  EXPECT_DOUBLE_EQ(counts.ReusedRatio(), 0.6);
  EXPECT_DOUBLE_EQ(counts.ComputedRatio(), 0.25);
}

}  // namespace
}  // namespace kdn
