-- Which deleted keys stay, for whoever asks what became of a row.
d.deleted_at >= now() - interval '7 days'
