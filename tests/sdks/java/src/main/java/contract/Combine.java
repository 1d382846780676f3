package contract;

import dev.restate.sdk.CallDurableFuture;
import dev.restate.sdk.Context;
import dev.restate.sdk.DurableFuture;
import dev.restate.sdk.Select;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.TerminalException;
import dev.restate.sdk.common.TimeoutException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** All, race, any, and a wait with a time limit. */
@Service
public class Combine {
  @Handler
  public List<String> all(Context ctx, List<String> names) {
    List<CallDurableFuture<String>> futures =
        names.stream().map(name -> BasicsClient.fromContext(ctx).greet(name)).toList();
    DurableFuture.all(List.copyOf(futures)).await();
    return futures.stream().map(DurableFuture::await).toList();
  }

  @Handler
  public String race(Context ctx, String name) {
    return Select.<String>select()
        .when(ctx.timer(Duration.ofHours(1)), ignored -> "overslept")
        .or(BasicsClient.fromContext(ctx).greet(name))
        .await();
  }

  @Handler
  public String timeout(Context ctx) {
    try {
      ctx.awakeable(String.class).await(Duration.ofMillis(10));
      return "a letter";
    } catch (TimeoutException e) {
      return "timed out";
    }
  }

  /** The first that succeeds. */
  @Handler
  public String any(Context ctx, String name) {
    List<DurableFuture<String>> futures =
        new ArrayList<>(
            List.of(
                BasicsClient.fromContext(ctx).fail(name),
                BasicsClient.fromContext(ctx).greet(name)));
    while (futures.size() > 1) {
      int first = DurableFuture.any(List.copyOf(futures)).await();
      try {
        return futures.get(first).await();
      } catch (TerminalException e) {
        futures.remove(first);
      }
    }
    return futures.get(0).await();
  }
}
