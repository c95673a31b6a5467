, noted AS (
    UPDATE @{positions} SET cleared_below = greatest(cleared_below, n.below) FROM newest n WHERE reader = $5::text::uuid
)
