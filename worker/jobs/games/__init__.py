"""Game sync: a player's games are fetched from Lichess or Chess.com, and analysed by a chess engine.

    [job.sync_games]
    python = "worker.jobs.games:sync_games"

Needs the extra `games`, sql/jobs/games, and a UCI engine such as Stockfish. What the job is to do it reads from
`games.sync`, where `games.start()` wrote it; all it keeps is there too, so that it goes on where it stopped.
"""

from worker.jobs.games.sync import sync_games

__all__ = ["sync_games"]
