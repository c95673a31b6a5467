-- Run once, in a new cluster, where syncline_write is there already.
CREATE DATABASE syncline_graph;
