package contract;

import dev.restate.sdk.Context;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.RetryPolicy;
import dev.restate.sdk.common.TerminalException;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** Steps: with a result, refused, retried, given up. */
@Service
public class Runs {
  private static final Map<String, Integer> ATTEMPTS = new ConcurrentHashMap<>();
  private static final Duration INTERVAL = Duration.ofMillis(10);

  @Handler
  public int value(Context ctx, int number) {
    return ctx.run("double", Integer.class, () -> number * 2);
  }

  @Handler
  public String refused(Context ctx) {
    return ctx.run(
        "refuse",
        String.class,
        () -> {
          throw new TerminalException(422, "not today");
        });
  }

  /** Works the third time; how often it was tried. */
  @Handler
  public int retried(Context ctx, String name) {
    return ctx.run(
        "flaky",
        Integer.class,
        RetryPolicy.exponential(INTERVAL, 2),
        () -> {
          int count = ATTEMPTS.merge(name, 1, Integer::sum);
          if (count < 3) {
            throw new IllegalStateException("not yet");
          }
          return count;
        });
  }

  /** Never works; what is said after two attempts. */
  @Handler
  public String exhausted(Context ctx, String name) {
    try {
      ctx.run(
          "broken",
          RetryPolicy.exponential(INTERVAL, 2).setMaxAttempts(2),
          () -> {
            ATTEMPTS.merge(name, 1, Integer::sum);
            throw new IllegalStateException("broken");
          });
    } catch (TerminalException e) {
      return "gave up after " + ATTEMPTS.get(name);
    }
    return "it worked";
  }
}
