UNION ALL
SELECT x.@{owner}, 'rejected', x.@{member}, NULL FROM @{rejections} x
