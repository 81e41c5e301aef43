// copy_draft: the latest repetition by hand, copies of copies, paths that join the text, and
// sequences that have stopped.
#include "kangaroo/copy_draft.h"

#include <vector>

#include "testing.h"

namespace {

constexpr int64_t kSlots = 12, kNodes = 6;
using Tokens = std::vector<int64_t>;

// One sequence whose text is known but for its root.
struct Sequence {
  explicit Sequence(const std::vector<int32_t>& tokens) : text(kSlots, 99) {
    std::copy(tokens.begin(), tokens.end() - 1, text.begin());
    nodes[0] = tokens.back();
    seqlen = static_cast<int32_t>(tokens.size()) - 1;
  }

  kangaroo_status look(int64_t size, int64_t count) {
    kangaroo_copy_draft_params p = {};
    p.text = text.data();
    p.path = path.data();
    p.path_len = &path_len;
    p.trees.nodes = {nodes.data(), positions.data(), &num_nodes, &stopped, &threshold, 1, kNodes};
    p.trees.parents = parents.data();
    p.trees.ancestors = ancestors.data();
    p.cache_seqlens = &seqlen;
    p.found = &found;
    p.slots = kSlots;
    p.size = size;
    p.count = count;
    return kangaroo_copy_draft(&p);
  }

  Tokens drafts() const { return Tokens(nodes.begin() + 1, nodes.begin() + num_nodes); }

  std::vector<int32_t> text;
  Tokens nodes = Tokens(kNodes, 77), path = Tokens(kNodes, 0), parents = Tokens(kNodes, 5);
  Tokens ancestors = Tokens(kNodes, 5);
  std::vector<int32_t> positions = std::vector<int32_t>(kNodes, 5);
  int32_t path_len = 1, num_nodes = 1, stopped = 0, seqlen = 0, found = 9;
  float threshold = 0.0f;
};

void the_latest() {
  Sequence s({1, 2, 3, 1, 2, 4, 1, 2});
  EXPECT(s.look(2, 3) == KANGAROO_OK);
  EXPECT(s.found == 1 && s.stopped == 1 && s.drafts() == Tokens({4, 1, 2}));
  EXPECT(s.positions == std::vector<int32_t>({7, 8, 9, 10, 5, 5}));
  EXPECT(s.parents == Tokens({-1, 0, 1, 2, 5, 5}) && s.ancestors == Tokens({1, 3, 7, 15, 5, 5}));
  EXPECT(s.text[7] == 2 && s.text[8] == 99);
}

void copies_of_copies() {
  Sequence s({5, 7, 5, 7});
  EXPECT(s.look(2, 5) == KANGAROO_OK && s.drafts() == Tokens({5, 7, 5, 7, 5}));
  Sequence one({3, 3});
  EXPECT(one.look(1, 5) == KANGAROO_OK && one.drafts() == Tokens({3, 3, 3, 3, 3}));
}

void nothing() {
  for (const int64_t size : {3, 4, 12}) {
    Sequence s({1, 2, 4, 1, 2});
    EXPECT(s.look(size, 3) == KANGAROO_OK);
    EXPECT(s.found == 0 && s.stopped == 0 && s.num_nodes == 1);
    EXPECT(s.nodes == Tokens({2, 77, 77, 77, 77, 77}) && s.parents == Tokens(kNodes, 5));
  }
}

void paths() {
  Sequence s({1, 2, 3, 8, 1, 2, 3});
  std::fill(s.text.begin() + 4, s.text.end(), 99);
  s.path_len = 3;
  s.path = {0, 2, 5, -1, -1, -1};
  s.nodes[2] = 1;
  s.nodes[5] = 2;
  EXPECT(s.look(3, 2) == KANGAROO_OK && s.drafts() == Tokens({8, 1}));
  EXPECT(s.text == std::vector<int32_t>({1, 2, 3, 8, 1, 2, 3, 99, 99, 99, 99, 99}));
  s.stopped = 1;
  s.nodes[0] = 50;
  EXPECT(s.look(1, 2) == KANGAROO_OK && s.found == 0 && s.text[6] == 3);
}

}  // namespace

int main() {
  the_latest();
  copies_of_copies();
  nothing();
  paths();
  return testing::result();
}
