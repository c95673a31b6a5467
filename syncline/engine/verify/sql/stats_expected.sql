-- Every row's numbers, counted again all at once; nothing counted is not always zero, so that is asked as well.
FROM @{target} o
LEFT JOIN @{stats} n ON n.@{owner} = o.id
@{groups}
