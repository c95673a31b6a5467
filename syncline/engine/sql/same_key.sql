-- Byte by byte too, as the triggers tell keys apart: there are collations in which `a` is `A`. The first serves the index.
t.@{column} = d.key[@{index}] AND t.@{column}::text COLLATE "C" = d.key[@{index}]
