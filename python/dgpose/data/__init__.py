"""Reading, describing and generating pose data."""
