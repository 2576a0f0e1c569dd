// The loops of a product, for any Product of screen_simd.inl: included once for a level and once
// more for the extensions of AVX-512, since a function keeps the instructions of the place it
// stands in.

// products[query][panel][row] of kQueries x kPanels.
template <class Product, int kQueries, int kPanels>
DGPOSE_INLINE void multiply(const ScreenTile& tile, int64_t first_panel, int64_t first_query,
                            ScreenHits* hits) {
  const int64_t bytes = tile.groups * kPanelRows * 4;
  const uint8_t* panels = tile.panels + first_panel * bytes;
  const uint32_t* words[kQueries];
  typename Product::Total sums[kQueries][kPanels];
  for (int q = 0; q < kQueries; ++q) {
    words[q] = tile.queries[first_query + q].words;
    for (int p = 0; p < kPanels; ++p) clear(&sums[q][p]);
  }
  for (int64_t g = 0; g < tile.groups; ++g) {
    for (int q = 0; q < kQueries; ++q) {
      for (int p = 0; p < kPanels; ++p) {
        Product::add(panels + p * bytes + g * 64, words[q] + g * Product::kWords, &sums[q][p]);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int p = 0; p < kPanels; ++p) {
      to_float(sums[q][p], tile.queries[first_query + q].zero,
               hits->score[first_query + q][first_panel + p]);
    }
  }
}

template <class Product, int kPanels>
DGPOSE_INLINE void multiply_queries(const ScreenTile& tile, int64_t panel, ScreenHits* hits) {
  switch (tile.query_count) {
    case 1:
      return multiply<Product, 1, kPanels>(tile, panel, 0, hits);
    case 2:
      return multiply<Product, 2, kPanels>(tile, panel, 0, hits);
    case 3:
      return multiply<Product, 3, kPanels>(tile, panel, 0, hits);
    case 4:
      return multiply<Product, 4, kPanels>(tile, panel, 0, hits);
    case 5:
      return multiply<Product, 5, kPanels>(tile, panel, 0, hits);
    default:
      return multiply<Product, 6, kPanels>(tile, panel, 0, hits);
  }
}

template <class Product>
DGPOSE_INLINE void multiply_tile(const ScreenTile& tile, ScreenHits* hits) {
  int64_t panel = 0;
  for (; panel + kPanelsAtOnce <= tile.panel_count; panel += kPanelsAtOnce) {
    multiply_queries<Product, kPanelsAtOnce>(tile, panel, hits);
  }
  for (; panel < tile.panel_count; ++panel) multiply_queries<Product, 1>(tile, panel, hits);
}
