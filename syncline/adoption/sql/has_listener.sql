SELECT to_regclass('syncline.listener') IS NOT NULL
