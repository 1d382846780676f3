package contract;

import dev.restate.sdk.Context;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.TerminalException;
import java.time.Duration;
import java.util.List;

/** Calls, headers, errors, chance and sleeps. */
@Service
public class Basics {
  @Handler
  public String greet(Context ctx, String name) {
    return "Hello, " + name + "!";
  }

  @Handler
  public String header(Context ctx) {
    return ctx.request().headers().getOrDefault("x-color", "");
  }

  @Handler
  public String fail(Context ctx, String message) {
    throw new TerminalException(418, message);
  }

  /** What this attempt drew, and what the first one drew. */
  @Handler
  public List<String> chance(Context ctx) {
    String drawn = ctx.random().nextUUID() + " " + ctx.random().nextLong();
    String recorded = ctx.run("draw", String.class, () -> drawn);
    ctx.sleep(Duration.ofMillis(1));
    return List.of(drawn, recorded);
  }

  @Handler
  public String nap(Context ctx, int millis) {
    ctx.sleep(Duration.ofMillis(millis));
    return "rested";
  }
}
